//! Weights interleaved for the matrix product (`quant` says how), made once per model by all threads, and kept.

use crate::base::{Error, ErrorKind, Meta, Result};
use crate::ops::{Pool, for_chunks};
use crate::quant::{self, PANEL_ROWS};
use crate::simd::{Arena, Part};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Bytes of memory that tensors share out: taken from the system only as it is written.
const BLOCK: usize = if usize::BITS < 64 { 1 << 20 } else { 256 << 20 };

/// The interleaved tensors of a model, by name.
#[derive(Default)]
pub struct Panels(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    tensors: HashMap<String, Arc<Part>>,
    arena: Option<Arc<Arena>>,
}

impl Panels {
    /// The panels of tensor `name`, if they were made before.
    pub fn made(&self, name: &str) -> Option<Arc<Part>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).tensors.get(name).cloned()
    }

    /// The panels of tensor `name`, whose outer dimensions are matrices `[n, k]`; made now if they were not before, from
    /// bytes that `read(offset, out)` gives. `None` for plain types, which have no panels.
    pub fn get(
        &self,
        name: &str,
        meta: &Meta,
        pool: &dyn Pool,
        read: &(dyn Fn(usize, &mut [u8]) -> Result<()> + Sync),
    ) -> Result<Option<Arc<Part>>> {
        let dims = meta.shape.dims();
        let [.., n, k] = *dims else { return Ok(None) };
        let Some(panel) = quant::panel_bytes(meta.dtype, k) else { return Ok(None) };
        let mut kept = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(part) = kept.tensors.get(name) {
            return Ok(Some(part.clone()));
        }
        let per_matrix = n.div_ceil(PANEL_ROWS);
        let matrices: usize = dims[..dims.len() - 2].iter().product();
        let mut part = kept.take(matrices * per_matrix * panel)?;
        let row = meta.dtype.row_bytes(k).expect("a row is whole blocks");
        let failed = Mutex::new(None);
        for_chunks(pool, &mut part, panel, |i, out| {
            let (matrix, first) = (i / per_matrix, i % per_matrix * PANEL_ROWS);
            let mut rows = vec![0; PANEL_ROWS.min(n - first) * row];
            match read((matrix * n + first) * row, &mut rows) {
                Ok(()) => quant::pack_panel(meta.dtype, &rows, k, out),
                Err(e) => *failed.lock().unwrap_or_else(|e| e.into_inner()) = Some(e),
            }
        });
        if let Some(e) = failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
            return Err(e);
        }
        let part = Arc::new(part);
        kept.tensors.insert(name.to_owned(), part.clone());
        Ok(Some(part))
    }
}

impl Kept {
    fn take(&mut self, bytes: usize) -> Result<Part> {
        if let Some(part) = self.arena.as_ref().and_then(|a| a.take(bytes)) {
            return Ok(part);
        }
        self.arena = Arena::new(bytes.max(BLOCK)).or_else(|| Arena::new(bytes));
        self.arena.as_ref().and_then(|a| a.take(bytes)).ok_or_else(|| {
            Error::new(ErrorKind::OutOfMemory, format!("{} MiB of memory for weights cannot be had", bytes >> 20))
                .help("use a smaller model or quantization")
        })
    }
}
