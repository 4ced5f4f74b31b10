//! A session's memory on the device, shared by all its programs: inputs and caches, and buffers for temporaries and for kernels'
//! scratch, which hold nothing between two runs.

use super::device::{Buffer, Device};
use super::readback::{Pending, Ring};
use crate::base::{Error, Meta, Result};
use crate::graph::{Cache, Input, by_size};
use crate::quant;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

pub(super) const STORAGE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_DST).union(wgpu::BufferUsages::COPY_SRC);

/// Inputs and caches. Programs bind them, so they never move: inputs are as large as the largest batch from the start.
pub struct Memory {
    device: Device,
    input_words: usize,
    inputs: HashMap<Input, Arc<Buffer>>,
    caches: HashMap<Cache, Arc<Buffer>>,
    /// The largest first.
    temps: Vec<Arc<Buffer>>,
    /// In the order in which kernels count them.
    scratch: Vec<Arc<Buffer>>,
    /// What cells are copied through, if they are.
    copied: Vec<Arc<Buffer>>,
    ring: Ring,
}

impl Memory {
    /// Memory for inputs of up to so many words.
    pub fn new(device: &Device, input_words: usize) -> Memory {
        let (inputs, caches) = (HashMap::new(), HashMap::new());
        let (temps, scratch, copied, ring) = (Vec::new(), Vec::new(), Vec::new(), Ring::default());
        Memory { device: device.clone(), input_words: input_words.max(8), inputs, caches, temps, scratch, copied, ring }
    }

    /// Makes room for programs with slots for temporaries of these sizes, the largest first, and with this scratch. Programs that
    /// need more make more, and those made before keep what they have.
    pub fn reserve(&mut self, temps: &[usize], scratch: &[usize]) -> Result<()> {
        self.temps(temps)?;
        self.scratch(scratch)?;
        Ok(())
    }

    /// Buffers for slots of these sizes. The largest slot of every program gets the same, and so on: programs run one after the
    /// other.
    pub(super) fn temps(&mut self, sizes: &[usize]) -> Result<Vec<Arc<Buffer>>> {
        let mut slots = vec![None; sizes.len()];
        for (rank, slot) in by_size(sizes).into_iter().enumerate() {
            slots[slot] = Some(shared(&self.device, &mut self.temps, rank, "activations", sizes[slot])?);
        }
        Ok(slots.into_iter().flatten().collect())
    }

    /// Buffers for kernels' scratch.
    pub(super) fn scratch(&mut self, sizes: &[usize]) -> Result<Vec<Arc<Buffer>>> {
        let device = &self.device;
        sizes.iter().enumerate().map(|(i, size)| shared(device, &mut self.scratch, i, "scratch", *size)).collect()
    }

    /// Writes `bytes` to the start of an input, ahead of the next run. Zeros until written.
    pub fn write_input(&mut self, input: Input, bytes: &[u8]) -> Result<()> {
        self.write_input_at(input, 0, bytes)
    }

    /// Writes `bytes` to an input from byte `at` on, a multiple of 4, ahead of the next run.
    pub fn write_input_at(&mut self, input: Input, at: usize, bytes: &[u8]) -> Result<()> {
        let buffer = self.input(input, at + bytes.len())?;
        self.device.write(&buffer, at as u64, bytes);
        Ok(())
    }

    /// Reads the first `bytes` of an input, as the runs submitted so far leave it.
    pub fn read_input(&mut self, input: Input, bytes: usize) -> Result<Pending> {
        let buffer = self.input(input, bytes)?;
        self.ring.submit(&self.device, self.device.encoder(), &buffer, 0, bytes.next_multiple_of(4))
    }

    /// Writes into a cache from byte `at`. `at` and the length are multiples of 4.
    pub fn write_cache(&mut self, cache: Cache, at: u64, bytes: &[u8]) -> Result<()> {
        let buffer = self.known_cache(cache, at + bytes.len() as u64)?;
        self.device.write(&buffer, at, bytes);
        Ok(())
    }

    /// Reads the cells of whole pages of a cache, if it lies here, as the runs submitted so far leave them: `[cells, heads, dim]` in the type's
    /// own layout, which is also the CPU's.
    pub async fn read_cells(&mut self, cache: Cache, meta: &Meta, cells: Range<usize>) -> Result<Option<Vec<u8>>> {
        let Some(buffer) = self.caches.get(&cache).cloned() else { return Ok(None) };
        let mut coming = Vec::new();
        for (at, cell) in planes(meta) {
            let (at, bytes) = (at + cells.start * cell, cells.len() * cell);
            coming.push(self.ring.submit(&self.device, self.device.encoder(), &buffer, at as u64, bytes)?);
        }
        let mut parts = Vec::new();
        for pending in coming {
            parts.push(pending.wait_async().await?);
        }
        let whole = match &parts[..] {
            [codes, scales] => quant::gpu_blocks(meta.dtype, codes, scales),
            _ => parts.swap_remove(0),
        };
        Ok(Some(whole))
    }

    /// Writes the cells of whole pages of a cache, if it lies here, from cell `first` on, which is waited for; `bytes` are as
    /// [`read_cells`](Self::read_cells) gives them. Returns whether it lies here.
    pub async fn write_cells(&mut self, cache: Cache, meta: &Meta, first: usize, bytes: &[u8]) -> Result<bool> {
        let Some(buffer) = self.caches.get(&cache) else { return Ok(false) };
        self.stage_cells(buffer, meta, first, bytes);
        // Else staging memory would hold all that is written before the next run.
        self.device.submit(self.device.encoder());
        self.device.finish_async().await?;
        Ok(true)
    }

    fn stage_cells(&self, buffer: &Buffer, meta: &Meta, first: usize, bytes: &[u8]) {
        if !meta.dtype.is_quantized() {
            let cell = meta.span_bytes() / meta.outer();
            return self.device.write(buffer, (first * cell) as u64, bytes);
        }
        let count = bytes.len() / meta.dtype.row_bytes(meta.inner()).expect("cells are whole blocks");
        let words = quant::gpu_layout(meta.dtype, count, meta.inner(), bytes);
        let from = quant::gpu_planes(meta.dtype, count, meta.inner()).planes;
        for ((at, cell), from) in planes(meta).into_iter().zip(from) {
            let plane = &bytemuck::cast_slice(&words)[4 * from as usize..][..count * cell];
            self.device.write(buffer, (at + first * cell) as u64, plane);
        }
    }

    /// Copies `count` cells of a cache, a multiple of 64, if it lies here, ahead of the next run.
    pub fn copy_cells(&mut self, cache: Cache, meta: &Meta, [from, to]: [usize; 2], count: usize) -> Result<()> {
        let Some(buffer) = self.caches.get(&cache).cloned() else { return Ok(()) };
        let planes = planes(meta);
        // No buffer can be copied to itself.
        let most = planes.iter().map(|(_, cell)| cell * count).max().unwrap_or(0);
        let between = shared(&self.device, &mut self.copied, 0, "copied cells", most)?;
        let mut encoder = self.device.encoder();
        for (at, cell) in planes {
            let [from, to, size] = [at + from * cell, at + to * cell, count * cell].map(|n| n as u64);
            encoder.copy_buffer_to_buffer(&buffer.raw, from, &between.raw, 0, size);
            encoder.copy_buffer_to_buffer(&between.raw, 0, &buffer.raw, to, size);
        }
        self.device.submit(encoder);
        Ok(())
    }

    fn known_cache(&self, cache: Cache, end: u64) -> Result<Arc<Buffer>> {
        let buffer = self.caches.get(&cache).ok_or_else(|| Error::usage(format!("no program uses {cache:?}")))?;
        assert!(end <= buffer.size, "byte {end} of a cache of {}", buffer.size);
        Ok(buffer.clone())
    }

    /// Bytes held by temporaries and scratch, as far as new programs would use it.
    pub fn temp_bytes(&self) -> u64 {
        self.temps.iter().chain(&self.scratch).map(|b| b.size).sum()
    }

    /// Bytes held by inputs and caches.
    pub fn bytes(&self) -> u64 {
        self.inputs.values().chain(self.caches.values()).map(|b| b.size).sum()
    }

    pub(super) fn input(&mut self, input: Input, bytes: usize) -> Result<Arc<Buffer>> {
        let room = 4 * self.input_words;
        if bytes > room {
            let what = format!("an input of {} words in memory for {}", bytes / 4, self.input_words);
            return Err(Error::usage(what).help("use smaller batches"));
        }
        if let Some(buffer) = self.inputs.get(&input) {
            return Ok(buffer.clone());
        }
        let buffer = Arc::new(self.device.buffer("input", room as u64, STORAGE)?);
        self.inputs.insert(input, buffer.clone());
        Ok(buffer)
    }

    pub(super) fn cache(&mut self, cache: Cache, bytes: usize) -> Result<Arc<Buffer>> {
        if let Some(buffer) = self.caches.get(&cache) {
            assert!(buffer.size >= bytes as u64, "all graphs of a session have the same context length");
            return Ok(buffer.clone());
        }
        let buffer = Arc::new(self.device.buffer("cache", bytes as u64, STORAGE)?);
        self.caches.insert(cache, buffer.clone());
        Ok(buffer)
    }
}

/// Of each plane of a cache the bytes before it, and of a cell.
fn planes(meta: &Meta) -> Vec<(usize, usize)> {
    if !meta.dtype.is_quantized() {
        return vec![(0, meta.span_bytes() / meta.outer())];
    }
    let all = quant::gpu_planes(meta.dtype, meta.outer(), meta.inner());
    let blocks = quant::gpu_padded(meta.inner()) / 32;
    let of_block = [meta.dtype.block_bytes() - 2, 2];
    (0..2).map(|p| (4 * all.planes[p] as usize, blocks * of_block[p])).collect()
}

/// Buffer `i` of `all`, of at least `bytes`.
fn shared(device: &Device, all: &mut Vec<Arc<Buffer>>, i: usize, label: &str, bytes: usize) -> Result<Arc<Buffer>> {
    match all.get_mut(i) {
        Some(buffer) if buffer.size >= bytes as u64 => {}
        Some(buffer) => *buffer = Arc::new(device.buffer(label, bytes as u64, STORAGE)?),
        None => all.push(Arc::new(device.buffer(label, bytes as u64, STORAGE)?)),
    }
    Ok(all[i].clone())
}
