//! What drivers have compiled, kept in a file of its own for each device: the next start takes it from there. Vulkan only; the other
//! interfaces keep such files themselves.
//!
//! It is a cache and nothing depends on it: a file that is damaged, of another driver or of other shaders is as none.
#![allow(unsafe_code)]

use super::device::Device;
use super::preprocess;
use crate::base::{Error, Result, replace};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A device's compiled pipelines.
pub(super) struct PipelineCache {
    raw: wgpu::PipelineCache,
    path: PathBuf,
    /// The hash of what the file holds.
    kept: Mutex<u64>,
}

impl PipelineCache {
    /// What the device's file in `folder` holds, to which what is compiled from now on is added; `None` if the device has no such
    /// thing.
    pub fn open(device: &Device, folder: &Path) -> Option<PipelineCache> {
        let raw = &device.inner.raw;
        if !raw.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let path = folder.join(wgpu::util::pipeline_cache_key(&device.inner.adapter.get_info())?);
        let bytes = std::fs::read(&path).ok();
        let data = bytes.as_deref().and_then(unsealed);
        let descriptor = wgpu::PipelineCacheDescriptor { label: Some("pipelines"), data, fallback: true };
        // SAFETY: the data are what `get_data` gave, for the file is only taken if its hash is right; wgpu compares the driver's
        // version and the adapter with those that the data were made with.
        let raw = unsafe { raw.create_pipeline_cache(&descriptor) };
        Some(PipelineCache { raw, path, kept: Mutex::new(data.map_or(0, hash)) })
    }

    /// Where the file lies.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// What pipelines are made with.
    pub fn raw(&self) -> &wgpu::PipelineCache {
        &self.raw
    }

    /// Brings the file up to date, if anything was compiled that it lacks.
    pub fn save(&self) -> Result<()> {
        let Some(data) = self.raw.get_data() else { return Ok(()) };
        let mut kept = self.kept.lock().unwrap_or_else(|e| e.into_inner());
        if *kept == hash(&data) {
            return Ok(());
        }
        replace(&self.path, sealed(&data))
            .map_err(|e| Error::io("can't keep compiled pipelines", e).at(self.path.display()))?;
        *kept = hash(&data);
        Ok(())
    }
}

/// Bytes before the data: the hash of the shaders, since what was compiled of others is of no use and would pile up, and that of the
/// data.
const SEAL: usize = 16;

fn hash(data: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    hasher.finish()
}

fn seal(data: &[u8]) -> [u8; SEAL] {
    let mut seal = [0; SEAL];
    seal[..8].copy_from_slice(&preprocess::fingerprint().to_le_bytes());
    seal[8..].copy_from_slice(&hash(data).to_le_bytes());
    seal
}

/// What the file holds of `data`.
fn sealed(data: &[u8]) -> Vec<u8> {
    [&seal(data)[..], data].concat()
}

/// The data in a file's bytes, if they are whole and of these shaders.
fn unsealed(bytes: &[u8]) -> Option<&[u8]> {
    let (front, data) = bytes.split_at_checked(SEAL)?;
    (front == seal(data)).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_written_is_read() {
        let bytes = sealed(b"compiled");
        assert_eq!(unsealed(&bytes), Some(&b"compiled"[..]));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(unsealed(&damaged), None, "byte {at}");
            assert_eq!(unsealed(&bytes[..at]), None, "{at} bytes");
        }
    }
}
