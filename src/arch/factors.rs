//! Small tables of a file that the builder needs as numbers: what activations are divided by, and what products are multiplied by.

use crate::base::{DType, Error, Meta, Result};
use crate::gguf::{Gguf, TensorInfo};
use std::collections::HashMap;

/// The values of a small `f32` tensor.
pub(super) fn read_f32(gguf: &Gguf, info: &TensorInfo) -> Result<Vec<f32>> {
    Meta::new(info.dtype, info.shape).want("a table", DType::F32).map_err(|e| e.at(format!("tensor {}", info.name)))?;
    // Read, since a browser's file has nothing in memory to point at.
    let mut bytes = vec![0; info.bytes()];
    gguf.read_into(info, 0, &mut bytes)?;
    Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

/// 1 / `ffn.act.scales`, by layer.
pub(super) fn read_act_factors(gguf: &Gguf, layers: usize) -> Result<HashMap<usize, Vec<f32>>> {
    let mut factors = HashMap::new();
    for i in 0..layers {
        if let Some(info) = gguf.tensor(&format!("blk.{i}.ffn.act.scales")) {
            factors.insert(i, read_f32(gguf, info)?.into_iter().map(|s| 1.0 / s).collect());
        }
    }
    Ok(factors)
}

/// What a weight's products are multiplied by: `blk.0.attn_q.scale` `[1]` belongs to `blk.0.attn_q.weight`, `ffn_up_exps.scale`
/// `[experts]` to the experts one by one. By the scales' names. Source: NVFP4's second scale, BitNet's weight scale.
pub(super) fn read_weight_scales(gguf: &Gguf) -> Result<HashMap<String, Vec<f32>>> {
    let mut scales = HashMap::new();
    for info in gguf.tensors() {
        let of_weight = |name: &str| gguf.tensor(&format!("{name}.weight")).is_some();
        if info.name.strip_suffix(".scale").is_some_and(of_weight) {
            let values = read_f32(gguf, info)?;
            if let Some(bad) = values.iter().find(|x| !x.is_finite()) {
                return Err(Error::format(format!("a scale of {bad}")).at(format!("tensor {}", info.name)));
            }
            scales.insert(info.name.clone(), values);
        }
    }
    Ok(scales)
}
