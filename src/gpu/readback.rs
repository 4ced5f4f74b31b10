//! Bringing results to the host: buffers that are copied into, mapped, read and used again.

use super::device::{Buffer, Device};
use super::signal::Signal;
use crate::base::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

struct Slot {
    buffer: Buffer,
    busy: AtomicBool,
}

/// Buffers for reading; as many as are waited for at a time.
#[derive(Default)]
pub(super) struct Ring(Vec<Arc<Slot>>);

/// Bytes on their way from the device.
pub struct Pending {
    slot: Arc<Slot>,
    device: Device,
    size: usize,
    mapped: Signal<bool>,
    after: wgpu::SubmissionIndex,
}

impl Ring {
    /// Submits `encoder` with a copy of `from[at .. at + size]` behind its commands. `at` and `size` are multiples of 4.
    pub fn submit(
        &mut self,
        device: &Device,
        mut encoder: wgpu::CommandEncoder,
        from: &Buffer,
        at: u64,
        size: usize,
    ) -> Result<Pending> {
        let copied = self.copy(device, &mut encoder, from, at, size)?;
        let after = device.submit(encoder);
        Ok(copied.submitted(device, after))
    }

    /// Encodes such a copy, for whoever submits it: see [`Copied::submitted`].
    pub fn copy(
        &mut self,
        device: &Device,
        encoder: &mut wgpu::CommandEncoder,
        from: &Buffer,
        at: u64,
        size: usize,
    ) -> Result<Copied> {
        let fits = |s: &&Arc<Slot>| s.buffer.size >= size as u64 && !s.busy.load(Ordering::Acquire);
        let slot = match self.0.iter().find(fits) {
            Some(slot) => slot.clone(),
            None => {
                let usage = wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ;
                let buffer = device.buffer("readback", size as u64, usage)?;
                // Smaller ones that lie idle will not be needed again.
                self.0.retain(|s| s.busy.load(Ordering::Acquire) || s.buffer.size >= size as u64);
                self.0.push(Arc::new(Slot { buffer, busy: AtomicBool::new(false) }));
                self.0[self.0.len() - 1].clone()
            }
        };
        slot.busy.store(true, Ordering::Release);
        encoder.copy_buffer_to_buffer(&from.raw, at, &slot.buffer.raw, 0, Some(size as u64));
        device.inner.tally.read_back.fetch_add(size as u64, Ordering::Relaxed);
        Ok(Copied { slot, size })
    }
}

/// A copy that is encoded but not submitted.
pub(super) struct Copied {
    slot: Arc<Slot>,
    size: usize,
}

impl Copied {
    /// Its bytes, which come when submission `after` is done.
    pub fn submitted(self, device: &Device, after: wgpu::SubmissionIndex) -> Pending {
        let Copied { slot, size } = self;
        let mapped = Signal::default();
        let sender = mapped.clone();
        slot.buffer.raw.map_async(wgpu::MapMode::Read, 0..size as u64, move |r| sender.send(r.is_ok()));
        Pending { slot, device: device.clone(), size, mapped, after }
    }
}

impl Pending {
    /// Whether the bytes are there. Nothing is asked of the device: that does whoever waits for it.
    pub fn is_ready(&self) -> bool {
        self.mapped.is_ready()
    }

    /// Waits until the bytes are there; [`wait`](Self::wait) then only copies them.
    pub async fn arrive(&self) -> Result<()> {
        self.device.drive(&self.mapped, Some(self.after.clone()))?;
        self.mapped.ready().await;
        Ok(())
    }

    /// Waits for the bytes.
    pub fn wait(self) -> Result<Vec<u8>> {
        pollster::block_on(self.wait_async())
    }

    /// Waits for the bytes.
    pub async fn wait_async(self) -> Result<Vec<u8>> {
        let mapped = self.device.wait(self.mapped.clone(), Some(self.after.clone())).await?;
        self.device.check()?;
        let range = mapped.then(|| self.slot.buffer.raw.get_mapped_range(0..self.size as u64));
        match range {
            Some(Ok(view)) => Ok(view.to_vec()),
            _ => {
                Err(Error::new(ErrorKind::DeviceLost, format!("{} does not give its results", self.device.info().name)))
            }
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.slot.buffer.raw.unmap();
        self.slot.busy.store(false, Ordering::Release);
    }
}
