//! Rotary embedding of one model: its frequencies with their context-length scaling, for layers with and without a window.
//! Source: arXiv 2104.09864 (RoPE), 2309.00071 (YaRN), 2402.13753 (LongRoPE).

use super::factors::read_f32;
use super::keys::Keys;
use super::row::{Rope, Row, WindowRope};
use crate::base::{Error, Result};
use crate::gguf::Gguf;
use crate::ops::{Pairs, RopeTable};

/// What turns queries and keys.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// Which channels pair up.
    pub pairs: Pairs,
    /// Layers that see everything.
    full: RopeTable,
    /// Layers with a window.
    window: RopeTable,
    /// Whether the frequency factors hold in layers with a window too.
    window_factors: bool,
    factors: Factors,
    /// Context length of the original training, in tokens.
    pub original_context: usize,
}

/// Divisors of the frequencies, one per pair.
#[derive(Debug, Clone)]
enum Factors {
    None,
    One(Vec<f32>),
    /// LongRoPE: one set up to the original context, another for larger ones.
    ByContext {
        short: Vec<f32>,
        long: Vec<f32>,
    },
}

impl Rotation {
    /// Reads keys and factor tensors; `dim` is the width of a head.
    pub fn read(keys: &Keys, row: &Row, gguf: &Gguf, dim: usize) -> Result<Rotation> {
        let full = read_table(keys, dim)?;
        let plain = |base: f64| RopeTable::plain(full.dims, base);
        let own_base = keys.factor("rope.freq_base_swa")?.map(f64::from);
        let window = match row.window_rope {
            WindowRope::Same => RopeTable { base: own_base.unwrap_or(full.base), ..full },
            WindowRope::Unscaled => plain(full.base),
            WindowRope::Base(base) => plain(own_base.unwrap_or(base)),
        };
        let sections = keys.marked_layers("rope.dimension_sections", 2)?.is_some_and(|s| s == [true, true]);
        Ok(Rotation {
            pairs: match row.rope {
                Rope::NeoX => Pairs::NeoX,
                Rope::Sections if sections => Pairs::NeoX,
                Rope::None | Rope::Interleaved | Rope::Sections => Pairs::Interleaved,
            },
            window_factors: row.window_rope == WindowRope::Same,
            factors: read_factors(gguf, full.dims / 2)?,
            original_context: full.original_context,
            full,
            window,
        })
    }

    /// Turns per position and the factor on turned channels, for a cache of `context` tokens.
    pub fn turns(&self, windowed: bool, context: usize) -> (Vec<u32>, f32) {
        let factors = match &self.factors {
            Factors::One(factors) => Some(factors.as_slice()),
            Factors::ByContext { long, .. } if context > self.original_context => Some(long.as_slice()),
            Factors::ByContext { short, .. } => Some(short.as_slice()),
            Factors::None => None,
        };
        match windowed {
            true => self.window.turns(factors.filter(|_| self.window_factors)),
            false => self.full.turns(factors),
        }
    }
}

fn read_table(keys: &Keys, dim: usize) -> Result<RopeTable> {
    let dims = keys.size("rope.dimension_count")?.unwrap_or(dim);
    if dims > dim || !dims.is_multiple_of(2) {
        return Err(Error::format(format!("{dims} turned channels in heads of {dim}"))
            .at(format!("key {}", keys.name("rope.dimension_count"))));
    }
    let mut base = keys.factor("rope.freq_base")?.map_or(10000.0, f64::from);
    // NTK-aware scaling: stretch the base instead of the positions.
    if let Some(alpha) = keys.factor("rope.scaling.alpha")?.filter(|a| *a > 0.0 && dim > 2) {
        base *= f64::from(alpha).powf(dim as f64 / (dim as f64 - 2.0));
    }
    let kind = keys.word("rope.scaling.type")?.unwrap_or("linear");
    let factor = match keys.factor("rope.scaling.factor")? {
        None => keys.factor("rope.scale_linear")?,
        some => some,
    };
    let factor = if kind == "none" { 1.0 } else { factor.map_or(1.0, f64::from) };
    let yarn = match kind {
        "none" | "linear" | "longrope" => false,
        "yarn" => true,
        other => {
            return Err(Error::unsupported(format!("context scaling '{other}' is unknown"))
                .at(format!("key {}", keys.name("rope.scaling.type"))));
        }
    };
    let attn_factor = keys.factor("rope.scaling.attn_factor")?.map_or(1.0, f64::from)
        * keys.factor("rope.scaling.yarn_attn_factor")?.map_or(1.0, f64::from);
    let context = keys.need_size("context_length")?;
    Ok(RopeTable {
        freq_scale: 1.0 / factor,
        // A negative one is none that was set.
        ext_factor: match keys.factor("rope.scaling.yarn_ext_factor")?.map(f64::from).filter(|x| *x >= 0.0) {
            Some(factor) => factor,
            None => f64::from(u8::from(yarn)),
        },
        attn_factor: attn_factor * if yarn { yarn_attention(keys, factor)? } else { 1.0 },
        beta_fast: keys.factor("rope.scaling.yarn_beta_fast")?.map_or(32.0, f64::from),
        beta_slow: keys.factor("rope.scaling.yarn_beta_slow")?.map_or(1.0, f64::from),
        original_context: keys.size("rope.scaling.original_context_length")?.unwrap_or(context),
        ..RopeTable::plain(dims, base)
    })
}

/// YaRN's factor on attention, over the one that [`RopeTable`] applies by itself: 1, unless the file sets its own multiplier.
fn yarn_attention(keys: &Keys, factor: f64) -> Result<f64> {
    let stretch = |mul: f64| if factor <= 1.0 { 1.0 } else { 1.0 + 0.1 * mul * factor.ln() };
    let over = keys.factor("rope.scaling.yarn_log_multiplier")?.map_or(1.0, |mul| stretch(mul.into()));
    Ok(stretch(1.0) / over / (1.0 + 0.1 * factor.ln()))
}

fn read_factors(gguf: &Gguf, pairs: usize) -> Result<Factors> {
    let read = |name: &str| -> Result<Option<Vec<f32>>> {
        let Some(info) = gguf.tensor(name) else { return Ok(None) };
        let factors = read_f32(gguf, info)?;
        if factors.len() != pairs {
            return Err(Error::format(format!("{} factors for {pairs} pairs of channels", factors.len()))
                .at(format!("tensor {name}")));
        }
        Ok(Some(factors))
    };
    if let Some(factors) = read("rope_freqs.weight")? {
        return Ok(Factors::One(factors));
    }
    match (read("rope_factors_short.weight")?, read("rope_factors_long.weight")?) {
        (Some(short), Some(long)) => Ok(Factors::ByContext { short, long }),
        (None, None) => Ok(Factors::None),
        _ => Err(Error::format("one of the tensors rope_factors_short.weight and rope_factors_long.weight is missing")),
    }
}
