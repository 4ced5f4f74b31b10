//! Experts that a file keeps as single tensors, `blk.0.ffn_gate.3.weight`, appear as the one tensor that newer files have:
//! `blk.0.ffn_gate_exps.weight` `[experts, n, k]`. Source: the layout of Mixtral files before llama.cpp's change of April 2024.

use super::{Gguf, TensorInfo};
use crate::base::{Error, Result, Shape};
use std::collections::HashMap;

/// `blk.0.ffn_gate.3.weight` as (`blk.0.ffn_gate_exps.weight`, 3).
fn expert(name: &str) -> Option<(String, usize)> {
    let (front, suffix) = name.rsplit_once('.').filter(|(_, suffix)| ["weight", "bias"].contains(suffix))?;
    let (front, number) = front.rsplit_once('.')?;
    let (block, label) = front.rsplit_once('.')?;
    let known = ["ffn_gate", "ffn_up", "ffn_down"].contains(&label) && block.starts_with("blk.");
    // "03" would not be the same name as "3".
    let number: usize = number.parse().ok().filter(|n: &usize| known && n.to_string() == number)?;
    Some((format!("{block}.{label}_exps.{suffix}"), number))
}

/// Puts one tensor in place of single experts, at the place of the first. Fails if experts of one name differ in type or
/// shape, or one is missing.
pub(super) fn join(tensors: Vec<TensorInfo>) -> Result<Vec<TensorInfo>> {
    let mut joined: Vec<TensorInfo> = Vec::with_capacity(tensors.len());
    // Place in `joined`, and the experts by number.
    let mut groups: HashMap<String, (usize, Vec<Option<TensorInfo>>)> = HashMap::new();
    for tensor in tensors {
        let Some((name, number)) = expert(&tensor.name).filter(|(_, number)| *number < MOST) else {
            joined.push(tensor);
            continue;
        };
        let place = joined.len();
        let (_, experts) = groups.entry(name.clone()).or_insert((place, Vec::new()));
        if experts.is_empty() {
            joined.push(TensorInfo { name, ..tensor.clone() });
        }
        if experts.len() <= number {
            experts.resize(number + 1, None);
        }
        if experts[number].replace(tensor).is_some() {
            return Err(
                Error::format("the name occurs twice").at(format!("expert {number} of {:?}", joined[place].name))
            );
        }
    }
    for (name, (place, experts)) in groups {
        let at = |e: Error| e.at(format!("tensor {name:?}"));
        joined[place] = stack(&name, experts).map_err(at)?;
    }
    Ok(joined)
}

/// More experts than any model has: numbers beyond are no experts'.
const MOST: usize = 4096;

fn stack(name: &str, experts: Vec<Option<TensorInfo>>) -> Result<TensorInfo> {
    let n = experts.len();
    let missing = |i: usize| Error::format(format!("the file has no expert {i}")).help("download or convert it again");
    let first = experts[0].as_ref().ok_or_else(|| missing(0))?;
    let dims: Vec<usize> = std::iter::once(n).chain(first.shape.dims().iter().copied()).collect();
    if dims.len() > crate::base::MAX_DIMS {
        return Err(Error::format(format!("experts of {} dimensions", dims.len() - 1)));
    }
    let mut pieces = Vec::with_capacity(n);
    for (i, expert) in experts.iter().enumerate() {
        let expert = expert.as_ref().ok_or_else(|| missing(i))?;
        if (expert.dtype, expert.shape) != (first.dtype, first.shape) {
            return Err(Error::unsupported(format!(
                "expert {i} is {} {:?}, the first {} {:?}",
                expert.dtype, expert.shape, first.dtype, first.shape
            ))
            .help("convert the model again: newer converters write all experts as one tensor"));
        }
        pieces.push((expert.part, expert.start));
    }
    Ok(TensorInfo {
        name: name.to_owned(),
        dtype: first.dtype,
        shape: Shape::new(&dims),
        part: first.part,
        start: first.start,
        pieces,
    })
}

/// Reads bytes of a tensor that lies in pieces; the range was checked.
pub(super) fn read_pieces(gguf: &Gguf, tensor: &TensorInfo, mut offset: usize, mut into: &mut [u8]) -> Result<()> {
    let bytes = tensor.bytes() / tensor.pieces.len();
    while !into.is_empty() {
        let (part, start) = tensor.pieces[offset / bytes];
        let here = into.len().min(bytes - offset % bytes);
        let (now, rest) = into.split_at_mut(here);
        gguf.sources[part].read_at(start + (offset % bytes) as u64, now)?;
        (offset, into) = (offset + here, rest);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbered_networks_are_experts() {
        assert_eq!(expert("blk.0.ffn_gate.3.weight"), Some(("blk.0.ffn_gate_exps.weight".into(), 3)));
        assert_eq!(expert("blk.11.ffn_down.0.bias"), Some(("blk.11.ffn_down_exps.bias".into(), 0)));
        for name in [
            "blk.0.ffn_gate.weight",
            "blk.0.ffn_gate.03.weight",
            "blk.0.attn_q.1.weight",
            "ffn_up.1.weight",
            "blk.0.ffn_up.x.weight",
        ] {
            assert_eq!(expert(name), None, "{name}");
        }
    }
}
