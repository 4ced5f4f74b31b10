//! How much memory a device has, where its system does not say: browsers tell nobody.

use super::device::{Buffer, Device};
use super::memory::STORAGE;
use crate::base::{ErrorKind, Result};

/// Bytes taken at a time.
const PIECE: u64 = 256 << 20;

impl Device {
    /// Bytes that can be had, up to `wanted`: found out by taking them and giving them back. Within the budget, where there is one
    /// ([`set_budget`](Self::set_budget)). Fails only with the device.
    pub async fn probe_free_memory(&self, wanted: u64) -> Result<u64> {
        let (mut taken, mut bytes): (Vec<Buffer>, u64) = (Vec::new(), 0);
        while bytes < wanted {
            let piece = PIECE.min(wanted - bytes).min(self.budget_left() / 16 * 16).min(self.caps().max_binding);
            if piece == 0 {
                break;
            }
            let scope = self.scope();
            let buffer = self.buffer("room", piece, STORAGE);
            match scope.finish().await.and(buffer) {
                Ok(buffer) => taken.push(buffer),
                Err(e) if e.kind() == ErrorKind::OutOfMemory => break,
                Err(e) => return Err(e),
            }
            bytes += piece;
        }
        taken.iter().for_each(|buffer| buffer.raw.destroy());
        Ok(bytes)
    }
}
