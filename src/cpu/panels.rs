//! Weights interleaved for the matrix product (`quant` says how), made once per model by all threads, and kept.

use crate::base::{Error, ErrorKind, Meta, Result};
use crate::ops::{Threads, for_chunks};
use crate::quant::{self, PANEL_ROWS};
use crate::simd::{Arena, ArenaSlice};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Bytes of memory that tensors share out: taken from the system only as it is written.
const BLOCK: usize = if usize::BITS < 64 { 1 << 20 } else { 256 << 20 };

/// Bytes of panels that are made at a time, between two words to who watches.
const PIECE: usize = 16 << 20;

thread_local! {
    /// The rows that a thread interleaves, kept from panel to panel.
    static ROWS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Where the rows of a tensor come from.
pub trait RowSource: Sync {
    /// The tensor's bytes from `offset` on.
    fn read(&self, offset: usize, out: &mut [u8]) -> Result<()>;

    /// So many more bytes are interleaved; an error stops the work.
    fn done(&self, _bytes: usize) -> Result<()> {
        Ok(())
    }
}

impl<F: Fn(usize, &mut [u8]) -> Result<()> + Sync> RowSource for F {
    fn read(&self, offset: usize, out: &mut [u8]) -> Result<()> {
        self(offset, out)
    }
}

/// The interleaved tensors of a model, by name.
#[derive(Default)]
pub struct Panels(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    tensors: HashMap<String, Arc<ArenaSlice>>,
    arena: Option<Arc<Arena>>,
}

impl Panels {
    /// The panels of tensor `name`, if they were made before.
    pub fn made(&self, name: &str) -> Option<Arc<ArenaSlice>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).tensors.get(name).cloned()
    }

    /// The panels of tensor `name`, whose outer dimensions are matrices `[n, k]`; made now if they were not before, from
    /// the bytes of `source`. `None` for vectors.
    pub fn get(
        &self,
        name: &str,
        meta: &Meta,
        pool: &dyn Threads,
        source: &dyn RowSource,
    ) -> Result<Option<Arc<ArenaSlice>>> {
        let dims = meta.shape.dims();
        let [.., n, k] = *dims else { return Ok(None) };
        let panel = quant::panel_bytes(meta.dtype, k);
        let mut kept = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(part) = kept.tensors.get(name) {
            return Ok(Some(part.clone()));
        }
        let per_matrix = n.div_ceil(PANEL_ROWS);
        let matrices: usize = dims[..dims.len() - 2].iter().product();
        let mut part = kept.take(matrices * per_matrix * panel)?;
        let row = meta.dtype.row_bytes(k).expect("a row is whole blocks");
        let failed = Mutex::new(None);
        let per_piece = (PIECE / panel).max(1);
        for (piece, out) in part.chunks_mut(per_piece * panel).enumerate() {
            for_chunks(pool, out, panel, |i, out| {
                let i = piece * per_piece + i;
                let (matrix, first) = (i / per_matrix, i % per_matrix * PANEL_ROWS);
                let bytes = PANEL_ROWS.min(n - first) * row;
                ROWS.with_borrow_mut(|rows| {
                    rows.resize(rows.len().max(bytes), 0);
                    let rows = &mut rows[..bytes];
                    match source.read((matrix * n + first) * row, rows) {
                        Ok(()) => quant::pack_panel(meta.dtype, rows, k, out),
                        Err(e) => *failed.lock().unwrap_or_else(|e| e.into_inner()) = Some(e),
                    }
                });
            });
            if let Some(e) = failed.lock().unwrap_or_else(|e| e.into_inner()).take() {
                return Err(e);
            }
            source.done(out.len())?;
        }
        let part = Arc::new(part);
        kept.tensors.insert(name.to_owned(), part.clone());
        Ok(Some(part))
    }
}

impl Kept {
    fn take(&mut self, bytes: usize) -> Result<ArenaSlice> {
        if let Some(part) = self.arena.as_ref().and_then(|a| a.take(bytes)) {
            return Ok(part);
        }
        self.arena = Arena::new(bytes.max(BLOCK)).or_else(|| Arena::new(bytes));
        self.arena.as_ref().and_then(|a| a.take(bytes)).ok_or_else(|| {
            Error::new(ErrorKind::OutOfSystemMemory, format!("{} MiB of memory for weights cannot be had", bytes >> 20))
                .help("use a smaller model or quantization")
        })
    }
}
