//! Memory that programs of a session share.

use crate::base::{Error, ErrorKind, Meta, Result};
use crate::graph::{BufId, Cache, Graph, Input, Node, Storage, by_size};
use crate::simd::{Arena, ArenaSlice};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

/// Memory that outlives a program: inputs and caches, shared by all programs of a session. So is that of temporaries, which hold
/// nothing between two runs: segments of a schedule find there what earlier ones left.
#[derive(Default)]
pub struct Memory {
    pub(super) buffers: Vec<Buffer>,
    /// Where caches lie that are written all over, in large pages; without it each page is taken as it is written.
    arena: Option<Arc<Arena>>,
    large_pages: bool,
    inputs: HashMap<Input, usize>,
    caches: HashMap<Cache, usize>,
    // Of temporaries, the largest first.
    temps: Vec<usize>,
}

/// Zeros at first, aligned for every element type.
pub(super) enum Buffer {
    Words(Vec<u64>),
    ArenaSlice(ArenaSlice),
}

impl Default for Buffer {
    fn default() -> Self {
        Buffer::Words(Vec::new())
    }
}

impl Buffer {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Buffer::Words(words) => bytemuck::cast_slice(words),
            Buffer::ArenaSlice(part) => part,
        }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Buffer::Words(words) => bytemuck::cast_slice_mut(words),
            Buffer::ArenaSlice(part) => part,
        }
    }

    fn len(&self) -> usize {
        self.bytes().len()
    }
}

/// Zeros, as the system gives them: a cache of which little is used takes little memory, and no time.
fn words(bytes: usize) -> Result<Vec<u64>> {
    bytemuck::allocation::try_zeroed_vec(bytes.div_ceil(8)).map_err(|()| {
        Error::new(ErrorKind::OutOfSystemMemory, format!("{} MiB of memory cannot be had", bytes >> 20))
            .help("choose a smaller context with -c, or a smaller model")
    })
}

impl Memory {
    /// Memory for so many sequences. The caches of several are written all over and lie in large pages, since reading them through small ones
    /// takes attention a fifth more time. A single one fills the beginning of each cache, and large pages would take more than it needs: up to
    /// 2 MiB for each.
    pub fn of_sequences(sequences: usize) -> Self {
        Memory { large_pages: sequences > 1, ..Memory::default() }
    }

    /// Takes room for the caches of some nodes of `graph` that are not there yet, if they are to lie in large pages.
    pub(super) fn reserve(&mut self, graph: &Graph, nodes: &[Node]) {
        if !self.large_pages {
            return;
        }
        let tensors = nodes.iter().flat_map(|node| &node.src);
        let caches: HashSet<_> = tensors
            .filter(|t| matches!(graph.storage(t), Storage::Cache(c) if !self.caches.contains_key(c)))
            .map(|t| t.buf)
            .collect();
        let bytes = |buf: &BufId| graph.buffers[buf.0 as usize].meta.span_bytes().next_multiple_of(Arena::ALIGN);
        let bytes: usize = caches.iter().map(bytes).sum();
        if bytes > 0 {
            self.arena = Arena::new(bytes);
        }
    }

    /// The bytes of an input, at least `bytes` of them; zeros the first time.
    pub fn input(&mut self, input: Input, bytes: usize) -> Result<&mut [u8]> {
        let i = self.input_index(input, bytes)?;
        Ok(self.buffers[i].bytes_mut())
    }

    pub(super) fn input_index(&mut self, input: Input, bytes: usize) -> Result<usize> {
        let next = self.buffers.len();
        let i = *self.inputs.entry(input).or_insert(next);
        if i == next {
            self.buffers.push(Buffer::default());
        }
        self.grow(i, bytes)?;
        Ok(i)
    }

    fn grow(&mut self, i: usize, bytes: usize) -> Result<()> {
        if self.buffers[i].len() < bytes {
            let mut grown = Buffer::Words(words(bytes)?);
            grown.bytes_mut()[..self.buffers[i].len()].copy_from_slice(self.buffers[i].bytes());
            self.buffers[i] = grown;
        }
        Ok(())
    }

    /// The buffers of slots of these sizes. The largest slot of every program gets the same, and so on.
    pub(super) fn temp_indices(&mut self, sizes: &[usize]) -> Result<Vec<usize>> {
        let mut indices = vec![0; sizes.len()];
        for (rank, slot) in by_size(sizes).into_iter().enumerate() {
            if rank == self.temps.len() {
                self.buffers.push(Buffer::default());
                self.temps.push(self.buffers.len() - 1);
            }
            indices[slot] = self.temps[rank];
            self.grow(indices[slot], sizes[slot])?;
        }
        Ok(indices)
    }

    pub(super) fn cache_index(&mut self, cache: Cache, bytes: usize) -> Result<usize> {
        if let Some(i) = self.caches.get(&cache) {
            assert!(self.buffers[*i].len() >= bytes, "all graphs of a session have the same context length");
            return Ok(*i);
        }
        let part = self.arena.as_ref().and_then(|arena| arena.take(bytes));
        self.buffers.push(part.map_or_else(|| words(bytes).map(Buffer::Words), |part| Ok(Buffer::ArenaSlice(part)))?);
        self.caches.insert(cache, self.buffers.len() - 1);
        Ok(self.buffers.len() - 1)
    }

    /// Copies `count` cells of a cache, if it lies here.
    pub fn copy_cells(&mut self, cache: Cache, meta: &Meta, [from, to]: [usize; 2], count: usize) {
        let Some(i) = self.caches.get(&cache) else { return };
        let bytes: &mut [u8] = self.buffers[*i].bytes_mut();
        bytes.copy_within(cell_bytes(meta, from..from + count), cell_bytes(meta, to..to).start);
    }

    /// Cells of a cache, `[cells, heads, dim]`, if it lies here.
    pub fn cells(&self, cache: Cache, meta: &Meta, cells: Range<usize>) -> Option<&[u8]> {
        let i = self.caches.get(&cache)?;
        Some(&self.buffers[*i].bytes()[cell_bytes(meta, cells)])
    }

    /// The same, to write.
    pub fn cells_mut(&mut self, cache: Cache, meta: &Meta, cells: Range<usize>) -> Option<&mut [u8]> {
        let i = self.caches.get(&cache)?;
        Some(&mut self.buffers[*i].bytes_mut()[cell_bytes(meta, cells)])
    }

    /// Bytes held by caches and inputs.
    pub fn bytes(&self) -> usize {
        self.inputs.values().chain(self.caches.values()).map(|i| self.buffers[*i].len()).sum()
    }

    /// Bytes held by temporaries.
    pub fn temp_bytes(&self) -> usize {
        self.temps.iter().map(|i| self.buffers[*i].len()).sum()
    }
}

/// Where cells of a cache lie in it.
fn cell_bytes(meta: &Meta, cells: Range<usize>) -> Range<usize> {
    let cell = meta.dtype.row_bytes(meta.inner()).expect("cells are whole blocks");
    cells.start * cell..cells.end * cell
}
