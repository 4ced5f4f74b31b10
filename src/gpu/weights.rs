//! A model's tensors on the device, in the layouts that kernels read, uploaded when a program first needs them.
//!
//! Weights that kernels decode are cut into shards that fit a binding and repacked by their format. Small tensors that
//! kernels read as they are (norms, biases, sinks) are plain buffers. Constants of graphs are kept here too.

use super::device::{Buffer, Device};
use super::memory::STORAGE;
use crate::base::{DType, Meta, Result, Shape};
use crate::ops::{Caps, Stack, weight_shards};
use crate::quant;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

/// Bytes that wait in staging memory before the device is made to take them.
const STAGING: u64 = 16 << 20;

/// Where weights come from: the model file.
pub trait Source: Send + Sync {
    /// Fills `out` with the bytes of tensor `name` from byte `at` on.
    fn read(&self, name: &str, at: u64, out: &mut [u8]) -> Result<()>;
}

/// A tensor of the file, or a view of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TensorSlice {
    pub name: String,
    /// `[rows, k]`, `[experts, rows, k]`, or a vector.
    pub meta: Meta,
    /// Its first value, in elements from the tensor's start.
    pub offset: usize,
}

/// What lies in one buffer, or in the shards of one: see [`Stack`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Stacked {
    pub parts: Vec<TensorSlice>,
    pub interleaved: bool,
}

impl Stacked {
    pub fn meta(&self) -> Meta {
        Stack::meta(&self.parts.iter().map(|p| p.meta).collect::<Vec<_>>())
    }

    fn label(&self) -> String {
        format!("tensor {}", self.parts.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", "))
    }
}

/// The tensors of one model on one device; shared by its programs.
pub struct Weights {
    device: Device,
    source: Arc<dyn Source>,
    sharded: HashMap<Stacked, Arc<[Buffer]>>,
    vectors: HashMap<Stacked, Arc<Buffer>>,
    plain: HashMap<String, Arc<Buffer>>,
    consts: HashMap<(String, u64), Arc<Buffer>>,
    staged: u64,
}

impl Weights {
    /// No tensor is read before a program needs it.
    pub fn new(device: &Device, source: Arc<dyn Source>) -> Weights {
        Weights {
            device: device.clone(),
            source,
            sharded: HashMap::new(),
            vectors: HashMap::new(),
            plain: HashMap::new(),
            consts: HashMap::new(),
            staged: 0,
        }
    }

    /// Bytes that weight `meta` will take on a device with `caps`, in the layout that kernels decode.
    pub fn bytes_of(meta: &Meta, caps: &Caps) -> u64 {
        Self::shard_bytes(meta, caps).sum()
    }

    /// The same, shard by shard.
    pub(super) fn shard_bytes(meta: &Meta, caps: &Caps) -> impl Iterator<Item = u64> {
        let (dtype, k) = (meta.dtype, meta.shape.row());
        weight_shards(meta, caps).into_iter().map(move |rows| 4 * quant::gpu_planes(dtype, rows.len(), k).words as u64)
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        let sharded = self.sharded.values().flat_map(|s| s.iter());
        let whole = self.plain.values().chain(self.vectors.values()).chain(self.consts.values());
        sharded.chain(whole.map(|b| &**b)).map(|b| b.size).sum()
    }

    /// Weights for kernels that decode them, in the shards of [`weight_shards`].
    pub(super) async fn sharded(&mut self, stack: &Stacked) -> Result<Arc<[Buffer]>> {
        if let Some(shards) = self.sharded.get(stack) {
            return Ok(shards.clone());
        }
        let meta = stack.meta();
        let mut shards = Vec::new();
        for rows in weight_shards(&meta, self.device.caps()) {
            shards.push(self.shard(stack, &meta, rows).await?);
        }
        let shards: Arc<[Buffer]> = shards.into();
        self.sharded.insert(stack.clone(), shards.clone());
        Ok(shards)
    }

    /// One shard, repacked some rows at a time: a browser's heap must not hold all of a large tensor.
    async fn shard(&mut self, stack: &Stacked, meta: &Meta, shard: Range<usize>) -> Result<Buffer> {
        let (dtype, k) = (meta.dtype, meta.shape.row());
        let planes = quant::gpu_planes(dtype, shard.len(), k);
        let buffer = self.device.buffer(&stack.label(), 4 * planes.words as u64, STORAGE)?;
        // Sixteen rows take a whole multiple of 16 bytes of every plane, so that pieces of planes join without a gap.
        let row = dtype.row_bytes(k).expect("rows are whole blocks").max(1);
        let step = (STAGING as usize / row).max(16) / 16 * 16;
        for start in shard.clone().step_by(step) {
            let rows = start..shard.end.min(start + step);
            let bytes = self.rows(stack, rows.clone())?;
            let words = quant::gpu_layout(dtype, rows.len(), k, &bytes);
            drop(bytes);
            let (before, here) =
                (quant::gpu_planes(dtype, start - shard.start, k), quant::gpu_planes(dtype, rows.len(), k));
            for (p, at) in planes.planes.iter().enumerate() {
                let piece = &words[plane(&here, p)];
                let at = *at as usize + plane(&before, p).len();
                if !piece.is_empty() {
                    self.write(&buffer, 4 * at as u64, bytemuck::cast_slice(piece)).await?;
                }
            }
        }
        Ok(buffer)
    }

    /// Vectors of `f32`, one after the other or value by value in turn.
    pub(super) async fn vectors(&mut self, stack: &Stacked) -> Result<Arc<Buffer>> {
        if let Some(buffer) = self.vectors.get(stack) {
            return Ok(buffer.clone());
        }
        // Rows of one value: the last dimension of a vector is the last but one of a weight.
        let row = |p: &TensorSlice| {
            let shape = Shape::new(&[p.meta.shape.dims(), &[1]].concat());
            let meta = Meta { shape, stride: if shape.dims().len() == 2 { 1 } else { p.meta.stride }, ..p.meta };
            TensorSlice { meta, ..p.clone() }
        };
        let rows = Stacked { parts: stack.parts.iter().map(row).collect(), ..*stack };
        let bytes = self.rows(&rows, 0..rows.meta().shape.rows())?;
        let buffer = Arc::new(self.upload(&stack.label(), &bytes).await?);
        self.vectors.insert(stack.clone(), buffer.clone());
        Ok(buffer)
    }

    /// The bytes of rows `range` of a stack.
    fn rows(&self, stack: &Stacked, range: Range<usize>) -> Result<Vec<u8>> {
        let meta = stack.meta();
        let size = |n: usize| meta.dtype.row_bytes(n).expect("rows are whole blocks");
        let (k, row) = (meta.shape.row(), size(meta.shape.row()));
        let mut out = vec![0; range.len() * row];
        let turns = if stack.interleaved { stack.parts.len() } else { 1 };
        let (mut first, mut run) = (0, Vec::new());
        for (p, part) in stack.parts.iter().enumerate() {
            let rows = part.meta.shape.rows();
            // The part's rows that are wanted, and where in the stack its first one lies.
            let base = if stack.interleaved { p } else { first };
            let wanted = match stack.interleaved {
                true => range.start / turns..range.end / turns,
                false => range.start.clamp(first, first + rows) - first..range.end.clamp(first, first + rows) - first,
            };
            first += rows;
            // Runs of rows that are neighbours in the file.
            let per = if part.meta.is_packed() { rows } else { rows / part.meta.outer() };
            let mut i = wanted.start;
            while i < wanted.end {
                let end = wanted.end.min((i / per + 1) * per);
                let element = part.offset + if per == rows { i * k } else { i / per * part.meta.stride + i % per * k };
                let to = (base + i * turns - range.start) * row;
                if turns == 1 {
                    self.source.read(&part.name, size(element) as u64, &mut out[to..][..(end - i) * row])?;
                } else {
                    run.resize((end - i) * row, 0);
                    self.source.read(&part.name, size(element) as u64, &mut run)?;
                    for (from, to) in run.chunks_exact(row).zip(out[to..].chunks_mut(turns * row)) {
                        to[..row].copy_from_slice(from);
                    }
                }
                i = end;
            }
        }
        Ok(out)
    }

    /// Tensor `name` as it is in the file.
    pub(super) async fn plain(&mut self, name: &str, meta: &Meta) -> Result<Arc<Buffer>> {
        if let Some(buffer) = self.plain.get(name) {
            return Ok(buffer.clone());
        }
        let size = meta.span_bytes();
        let buffer = Arc::new(self.device.buffer(&format!("tensor {name}"), size as u64, STORAGE)?);
        for at in (0..size).step_by(STAGING as usize) {
            let mut bytes = vec![0; (size - at).min(STAGING as usize)];
            self.source.read(name, at as u64, &mut bytes)?;
            self.write(&buffer, at as u64, &bytes).await?;
        }
        self.plain.insert(name.to_owned(), buffer.clone());
        Ok(buffer)
    }

    /// A graph's constant. Graphs of one session share what has the same label and content.
    pub(super) async fn constant(&mut self, label: &str, bytes: &[u8]) -> Result<Arc<Buffer>> {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let key = (label.to_owned(), hasher.finish());
        if let Some(buffer) = self.consts.get(&key) {
            return Ok(buffer.clone());
        }
        let buffer = Arc::new(self.upload(label, bytes).await?);
        self.consts.insert(key, buffer.clone());
        Ok(buffer)
    }

    /// A buffer with `bytes`.
    async fn upload(&mut self, label: &str, bytes: &[u8]) -> Result<Buffer> {
        let buffer = self.device.buffer(label, bytes.len() as u64, STORAGE)?;
        self.write(&buffer, 0, bytes).await?;
        Ok(buffer)
    }

    /// Writes `bytes` to `buffer` from byte `start` on, in pieces so that little waits in staging memory.
    async fn write(&mut self, buffer: &Buffer, start: u64, bytes: &[u8]) -> Result<()> {
        for (i, piece) in bytes.chunks(STAGING as usize).enumerate() {
            let at = start + i as u64 * STAGING;
            match piece.len() % 4 {
                0 => self.device.write(buffer, at, piece),
                // Writes are whole words; the rest of the buffer's last word is nobody's.
                rest => {
                    let whole = piece.len() - rest;
                    let mut last = [0; 4];
                    last[..rest].copy_from_slice(&piece[whole..]);
                    self.device.write(buffer, at, &piece[..whole]);
                    self.device.write(buffer, at + whole as u64, &last);
                }
            }
            self.staged += piece.len() as u64;
            if self.staged >= STAGING {
                self.staged = 0;
                self.device.submit(self.device.encoder());
                self.device.finish_async().await?;
            }
        }
        Ok(())
    }
}

/// The words of plane `p`.
fn plane(planes: &quant::GpuPlanes, p: usize) -> Range<usize> {
    let end = planes.planes.get(p + 1).map_or(planes.words, |end| *end as usize);
    planes.planes[p] as usize..end
}

/// Whether tensors of this type can be bound as they are: their words mean something to a kernel.
pub(super) fn is_plain(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::U32 | DType::I32)
}
