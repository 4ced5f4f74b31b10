//! How many tokens of context: what is asked for, what the model was trained with, and what memory has room for; and how many all
//! sequences share.

use super::notice::Listener;
use super::system;
use crate::arch::Cells;
use crate::base::{ErrorKind, Result};
use crate::gpu;
use crate::model::Model;
use crate::plan::Options;
use crate::plan::budget::Budget;
use crate::plan::fit::LEAST_CONTEXT;
use crate::state::PAGE_CELLS;

/// Pages beyond which a pool is not tried: 2³² tokens.
const MOST_PAGES: usize = 1 << 26;

/// Tokens of context, the largest first: the number `asked` for (0 for the model's), else the model's, halved until its cache is a small
/// part of memory and fits the device, and what it may shrink to before layers leave the GPU.
pub fn contexts(
    asked: Option<usize>,
    options: &Options,
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
    let system = quarter_of_memory();
    // The plan sees to it that the cache fits the GPU beside the weights; where it comes to lie is not known yet.
    let own = budget.gpu.filter(|_| device.is_some_and(|d| !d.shares_memory()));
    let room = usize::try_from(system.max(own.unwrap_or(0))).unwrap_or(usize::MAX);
    let fits = |context: usize| {
        let cells = Options { context, ..options.clone() }.cells(spec);
        // A layer's keys, or its values, are one binding.
        let largest = spec.largest_cache(&cells, options.kv) as u64;
        spec.cache_bytes(&cells, options.kv) <= room && device.is_none_or(|d| largest <= d.caps().max_binding)
    };
    let mut all = vec![trained];
    while let Some(context) = all.last().copied().filter(|c| *c > LEAST_CONTEXT) {
        all.push((context / 2).max(LEAST_CONTEXT));
    }
    let first = all.iter().position(|context| fits(*context)).unwrap_or(all.len() - 1);
    Ok(all.split_off(first))
}

/// Tokens that the caches of several sequences hold together, at the most; each may have as many as its context, and if pages are short,
/// sequences take turns. So many as a quarter of the free system memory has room for; on a GPU with memory of its own, three quarters
/// of what the weights leave there, and an eighth of it if they leave less. `None` for one sequence, which has its context.
pub fn pool(options: &Options, model: &Model, device: Option<&gpu::Device>, budget: &Budget) -> Option<usize> {
    if options.sequences < 2 {
        return None;
    }
    let spec = model.spec();
    let own = budget.gpu.filter(|_| device.is_some_and(|d| !d.shares_memory()));
    let room = own.map_or_else(quarter_of_memory, |gpu| {
        let left = gpu.saturating_sub(model.weight_bytes());
        (left / 4 * 3).max(gpu / 8)
    });
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    let fits = |pages: usize| {
        let cells = Cells::of(spec, options.sequences, pages * PAGE_CELLS, spec.context_length, options.prompt_rows());
        let cells = if options.swa_full { cells.without_windows() } else { cells };
        let largest = spec.largest_cache(&cells, options.kv) as u64;
        spec.cache_bytes(&cells, options.kv) <= room && device.is_none_or(|d| largest <= d.caps().max_binding)
    };
    let (mut low, mut high) = (0, MOST_PAGES);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if fits(middle) { low = middle } else { high = middle - 1 }
    }
    Some(low * PAGE_CELLS)
}

/// Bytes of system memory for caches.
fn quarter_of_memory() -> u64 {
    system::memory_available().map_or(2 << 30, |bytes| bytes / 4)
}

/// An error if weights and cache cannot fit into system memory, which is where all is without a real GPU.
pub fn check_memory(model: &Model, device: &Option<gpu::Device>, options: &Options) -> Result<()> {
    match system::memory_total() {
        Some(total) if device.as_ref().is_none_or(|d| d.info().software) => model.check_fits(
            model.spec().cache_bytes(&options.cells(model.spec()), options.kv) as u64,
            total,
            (ErrorKind::OutOfSystemMemory, "system memory"),
        ),
        _ => Ok(()),
    }
}
