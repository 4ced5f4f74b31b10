//! Every tensor of a file is read by some step, or known to be of no use to it: an answer without it would be wrong, and nobody
//! would know.

use super::builder::{Batch, build};
use super::spec::Spec;
use crate::base::{DType, Error, Result};
use crate::gguf::Gguf;
use crate::graph::Storage;
use regex::Regex;
use std::collections::HashSet;

/// Fails if the file has tensors that no step reads, that are no known passengers, and whose names `ignored` does not match.
pub(super) fn check(spec: &Spec, gguf: &Gguf, ignored: Option<&Regex>) -> Result<()> {
    // The graph names what it reads. Tables that become constants, and factors, are not among it.
    let context = spec.context_length.clamp(2, 64);
    let graph = build(spec, &Batch::of_one(2, 1, context, DType::F16.into(), false))?;
    let weight = |storage: &Storage| match storage {
        Storage::Weight(name) => Some(name.clone()),
        _ => None,
    };
    let read: HashSet<String> = graph.buffers.iter().filter_map(|b| weight(&b.storage)).collect();
    let names = gguf.tensors().iter().map(|t| t.name.as_str());
    let left: Vec<&str> = names
        .filter(|name| !read.contains(*name) && !is_table(spec, name) && !is_passenger(spec, gguf, name))
        .filter(|name| !ignored.is_some_and(|regex| regex.is_match(name)))
        .collect();
    if left.is_empty() {
        return Ok(());
    }
    let some = left.iter().take(8).copied().collect::<Vec<_>>().join(", ");
    let more = if left.len() > 8 { " …" } else { "" };
    let (n, s) = (left.len(), if left.len() == 1 { "" } else { "s" });
    Err(Error::unsupported(format!(
        "{n} tensor{s} that models of the architecture {} do not use here: {some}{more}",
        spec.architecture()
    ))
    .help("without them the answers would be wrong; --ignore-tensors REGEX runs the model all the same"))
}

/// Whether the file's numbers went into a constant or a step.
fn is_table(spec: &Spec, name: &str) -> bool {
    let (_, own) = layer_of(name);
    ["rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"].contains(&name)
        || own == "ffn.act.scales"
        || spec.weight_scales.contains_key(name)
}

/// A layer's number and a tensor's name within it: `blk.3.attn_q.weight` is (3, `attn_q.weight`).
fn layer_of(name: &str) -> (Option<usize>, &str) {
    let split = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    match split.and_then(|(number, own)| Some((number.parse().ok()?, own))) {
        Some((number, own)) => (Some(number), own),
        None => (None, name),
    }
}

/// Whether a tensor is one that files have, and that a text's logits do not depend on.
fn is_passenger(spec: &Spec, gguf: &Gguf, name: &str) -> bool {
    let (number, own) = layer_of(name);
    let Some(number) = number else {
        // Vision and sound; heads of models that rank or embed.
        return ["v.", "mm.", "a.", "resampler.", "cls.", "cls_", "dense_2.", "dense_3.", "score."].iter().any(|p| name.starts_with(p))
            // What activations are multiplied by before they are rounded to 4 bits: they are not rounded so here.
            || name.ends_with(".input_scale");
    };
    // Layers that predict further tokens stand behind the others.
    let Some(layer) = spec.layers.get(number) else { return number < spec.blocks };
    let skipped = layer.heads == 0 && !layer.ffn;
    skipped
        || own.starts_with("nextn.")
        || own.ends_with(".input_scale")
        || own == "attn_rot_embd.weight"
        // A twin of the one that all layers share.
        || (own.starts_with("rope_f") && gguf.tensor(own).is_some())
        || spec.row.idle.iter().any(|idle| own.starts_with(idle))
}
