//! How many tokens of context: what is asked for, what the model was trained with, and what memory has room for.

use super::notice::Listener;
use super::system;
use crate::base::{ErrorKind, Result};
use crate::gpu;
use crate::model::Model;
use crate::ops::CacheTypes;
use crate::plan::budget::Budget;
use crate::plan::fit::LEAST_CONTEXT;

/// Tokens of context, the largest first: the number `asked` for (0 for the model's), else the model's, halved until its cache is a small
/// part of memory and fits the device, and what it may shrink to before layers leave the GPU.
pub fn contexts(
    asked: Option<usize>,
    kv: CacheTypes,
    model: &Model,
    device: Option<&gpu::Device>,
    budget: &Budget,
    listener: &Listener,
) -> Result<Vec<usize>> {
    let spec = model.spec();
    let trained = spec.context_length;
    match asked {
        Some(0) => return Ok(vec![trained]),
        Some(n) => {
            if n > trained {
                listener.warn(format!(
                    "a context of {n} tokens; the model was trained with {trained}: beyond that its answers may be no good"
                ))?;
            }
            return Ok(vec![n]);
        }
        None => {}
    }
    let system = system::memory_available().map_or(2 << 30, |bytes| bytes / 4);
    // The plan sees to it that the cache fits the GPU beside the weights; where it comes to lie is not known yet.
    let own = budget.gpu.filter(|_| device.is_some_and(|d| !d.shares_memory()));
    let room = usize::try_from(system.max(own.unwrap_or(0))).unwrap_or(usize::MAX);
    let layers = spec.layers.iter().filter(|l| l.kv_heads > 0).count().max(1);
    let fits = |context: usize| {
        // A layer's keys, or its values, are one binding.
        let part = [kv.keys, kv.values].map(|of| spec.cache_bytes(context, of.into()) / layers / 2);
        let largest = part[0].max(part[1]) as u64;
        spec.cache_bytes(context, kv) <= room && device.is_none_or(|d| largest <= d.caps().max_binding)
    };
    let mut all = vec![trained];
    while let Some(context) = all.last().copied().filter(|c| *c > LEAST_CONTEXT) {
        all.push((context / 2).max(LEAST_CONTEXT));
    }
    let first = all.iter().position(|context| fits(*context)).unwrap_or(all.len() - 1);
    Ok(all.split_off(first))
}

/// An error if weights and cache cannot fit into system memory, which is where all is without a real GPU.
pub fn check_memory(model: &Model, device: &Option<gpu::Device>, context: usize, kv: CacheTypes) -> Result<()> {
    match system::memory_total() {
        Some(total) if device.as_ref().is_none_or(|d| d.info().software) => model.check_fits(
            model.spec().cache_bytes(context, kv) as u64,
            total,
            (ErrorKind::OutOfSystemMemory, "system memory"),
        ),
        _ => Ok(()),
    }
}
