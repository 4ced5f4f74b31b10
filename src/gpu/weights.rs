//! A model's tensors on the device, in the layouts that kernels read, uploaded when a program first needs them.
//!
//! Weights that kernels decode are cut into shards that fit a binding and repacked by their format. Small tensors that
//! kernels read as they are (norms, biases, sinks) are plain buffers. Constants of graphs are kept here too.

use super::device::{Buffer, Device};
use super::memory::STORAGE;
use crate::base::{DType, Meta, Result};
use crate::ops::weight_shards;
use crate::quant;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Bytes that wait in staging memory before the device is made to take them.
const STAGING: u64 = 16 << 20;

/// Where weights come from: the model file.
pub trait Source: Send + Sync {
    /// Fills `out` with the bytes of tensor `name` from byte `at` on.
    fn read(&self, name: &str, at: u64, out: &mut [u8]) -> Result<()>;
}

/// The tensors of one model on one device; shared by its programs.
pub struct Weights {
    device: Device,
    source: Arc<dyn Source>,
    sharded: HashMap<String, Arc<[Buffer]>>,
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
            plain: HashMap::new(),
            consts: HashMap::new(),
            staged: 0,
        }
    }

    /// Bytes that weight `meta` will take on a device with `caps`, in the layout that kernels decode.
    pub fn bytes_of(meta: &Meta, caps: &crate::ops::Caps) -> u64 {
        let words = |rows: usize| quant::gpu_planes(meta.dtype, rows, meta.shape.row()).words as u64;
        weight_shards(meta, caps).into_iter().map(|rows| 4 * words(rows.len())).sum()
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        let sharded = self.sharded.values().flat_map(|s| s.iter());
        sharded.chain(self.plain.values().chain(self.consts.values()).map(|b| &**b)).map(|b| b.size).sum()
    }

    /// Tensor `name` for kernels that decode it, in the shards of [`weight_shards`].
    pub(super) async fn sharded(&mut self, name: &str, meta: &Meta) -> Result<Arc<[Buffer]>> {
        if let Some(shards) = self.sharded.get(name) {
            return Ok(shards.clone());
        }
        let k = meta.shape.row();
        let row_bytes = meta.dtype.row_bytes(k).expect("rows are whole blocks");
        let mut shards = Vec::new();
        for rows in weight_shards(meta, self.device.caps()) {
            let mut bytes = vec![0; rows.len() * row_bytes];
            self.source.read(name, (rows.start * row_bytes) as u64, &mut bytes)?;
            let words = quant::gpu_layout(meta.dtype, rows.len(), k, &bytes);
            drop(bytes);
            shards.push(self.upload(&format!("tensor {name}"), bytemuck::cast_slice(&words)).await?);
        }
        let shards: Arc<[Buffer]> = shards.into();
        self.sharded.insert(name.to_owned(), shards.clone());
        Ok(shards)
    }

    /// Tensor `name` as it is in the file.
    pub(super) async fn plain(&mut self, name: &str, meta: &Meta) -> Result<Arc<Buffer>> {
        if let Some(buffer) = self.plain.get(name) {
            return Ok(buffer.clone());
        }
        let mut bytes = vec![0; meta.span_bytes()];
        self.source.read(name, 0, &mut bytes)?;
        let buffer = Arc::new(self.upload(&format!("tensor {name}"), &bytes).await?);
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

    /// A buffer with `bytes`, written in pieces so that little waits in staging memory.
    async fn upload(&mut self, label: &str, bytes: &[u8]) -> Result<Buffer> {
        let buffer = self.device.buffer(label, bytes.len() as u64, STORAGE)?;
        for (i, piece) in bytes.chunks(STAGING as usize).enumerate() {
            let at = i as u64 * STAGING;
            match piece.len() % 4 {
                0 => self.device.write(&buffer, at, piece),
                // Writes are whole words; the rest of the buffer's last word is nobody's.
                rest => {
                    let whole = piece.len() - rest;
                    let mut last = [0; 4];
                    last[..rest].copy_from_slice(&piece[whole..]);
                    self.device.write(&buffer, at, &piece[..whole]);
                    self.device.write(&buffer, at + whole as u64, &last);
                }
            }
            self.staged += piece.len() as u64;
            if self.staged >= STAGING {
                self.staged = 0;
                self.device.submit(self.device.encoder());
                self.device.finish_async().await?;
            }
        }
        Ok(buffer)
    }
}

/// Whether tensors of this type can be bound as they are: their words mean something to a kernel.
pub(super) fn is_plain(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::U32 | DType::I32)
}
