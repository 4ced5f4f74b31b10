//! Presets of formats: which tensor of a model gets which type in a file called `Q4_K_M`.
//!
//! Source: llama.cpp's quantizer, so that files of one name are alike whoever made them. The tables below are its rules; a
//! plain type's name (`q5_k`) means that type wherever no rule of all presets says otherwise.

use crate::base::{DType, Error, Result, Shape};

/// A preset by its name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preset {
    /// The name in lower case: `q4_k_m`.
    pub name: &'static str,
    /// What most tensors are.
    pub base: DType,
    /// `general.file_type`, llama.cpp's `llama_ftype`.
    pub id: u32,
    rules: &'static [Rule],
}

/// Which tensors of which layers are of another type. The first rule that holds counts.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rule(TensorKind, Where, DType);

/// What a tensor is for, as far as presets treat it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TensorKind {
    /// The output projection, or the embedding that serves as one.
    Head,
    Key,
    Value,
    AttnOutput,
    Down,
    Other,
}

/// Where in the model a rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    All,
    /// The first layers.
    First(usize),
    /// The first of so many parts of all layers.
    FirstOf(usize),
    /// The first and last eighth of the layers, and every third of the others.
    More,
    /// Models with at least so many query heads per key head.
    Grouped(usize),
}

/// What presets ask about a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Layers.
    pub layers: usize,
    /// Query heads per key head.
    pub group: usize,
    /// Experts; 0 in dense models.
    pub experts: usize,
    /// Whether the embedding is the output projection too.
    pub tied: bool,
}

use TensorKind::*;
use Where::*;

const MORE: &[Rule] = &[Rule(Value, More, DType::Q6_K), Rule(Down, More, DType::Q6_K)];
const IQ4: &[Rule] = &[Rule(Value, Grouped(4), DType::Q5_K), Rule(Down, FirstOf(8), DType::Q5_K)];

/// Every preset that files can be made in.
#[rustfmt::skip]
const PRESETS: &[Preset] = &[
    Preset { name: "f32", base: DType::F32, id: 0, rules: &[] },
    Preset { name: "f16", base: DType::F16, id: 1, rules: &[] },
    Preset { name: "bf16", base: DType::BF16, id: 32, rules: &[] },
    Preset { name: "q4_0", base: DType::Q4_0, id: 2, rules: &[] },
    Preset { name: "q4_1", base: DType::Q4_1, id: 3, rules: &[] },
    Preset { name: "q5_0", base: DType::Q5_0, id: 8, rules: &[] },
    Preset { name: "q5_1", base: DType::Q5_1, id: 9, rules: &[] },
    Preset { name: "q8_0", base: DType::Q8_0, id: 7, rules: &[] },
    Preset { name: "q2_k", base: DType::Q2_K, id: 10, rules: &[Rule(Value, Grouped(4), DType::Q4_K), Rule(Value, All, DType::Q3_K), Rule(Down, All, DType::Q3_K), Rule(AttnOutput, All, DType::Q3_K)] },
    Preset { name: "q3_k", base: DType::Q3_K, id: 11, rules: &[] },
    Preset { name: "q3_k_s", base: DType::Q3_K, id: 11, rules: &[] },
    Preset { name: "q3_k_m", base: DType::Q3_K, id: 12, rules: &[Rule(Value, First(2), DType::Q5_K), Rule(Value, All, DType::Q4_K), Rule(Down, FirstOf(16), DType::Q5_K), Rule(Down, All, DType::Q4_K), Rule(AttnOutput, All, DType::Q4_K)] },
    Preset { name: "q3_k_l", base: DType::Q3_K, id: 13, rules: &[Rule(Value, All, DType::Q5_K), Rule(Down, All, DType::Q5_K), Rule(AttnOutput, All, DType::Q5_K)] },
    Preset { name: "q4_k", base: DType::Q4_K, id: 14, rules: &[] },
    Preset { name: "q4_k_s", base: DType::Q4_K, id: 14, rules: &[Rule(Value, First(4), DType::Q5_K), Rule(Down, FirstOf(8), DType::Q5_K)] },
    Preset { name: "q4_k_m", base: DType::Q4_K, id: 15, rules: MORE },
    Preset { name: "q5_k", base: DType::Q5_K, id: 16, rules: &[] },
    Preset { name: "q5_k_s", base: DType::Q5_K, id: 16, rules: &[] },
    Preset { name: "q5_k_m", base: DType::Q5_K, id: 17, rules: MORE },
    Preset { name: "q6_k", base: DType::Q6_K, id: 18, rules: &[] },
    Preset { name: "iq4_nl", base: DType::IQ4_NL, id: 25, rules: IQ4 },
    Preset { name: "iq4_xs", base: DType::IQ4_XS, id: 30, rules: IQ4 },
    Preset { name: "mxfp4", base: DType::MXFP4, id: 38, rules: &[] },
];

impl Preset {
    /// The preset of this name, whatever its case.
    pub fn parse(name: &str) -> Result<Preset> {
        let lower = name.to_ascii_lowercase();
        PRESETS.iter().find(|m| m.name == lower).copied().ok_or_else(|| {
            let names: Vec<&str> = Self::names().collect();
            Error::usage(format!("there is no format {name:?}")).help(format!("there are {}", names.join(", ")))
        })
    }

    /// The names of all presets.
    pub fn names() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|m| m.name)
    }

    /// The type of the tensor `name` `shape` in a model with these `facts`.
    pub fn dtype(&self, name: &str, shape: &Shape, facts: &Facts) -> DType {
        if !is_quantized(name, shape) {
            return DType::F32;
        }
        let wanted = self.wanted(name, shape, facts);
        // A row must be whole blocks.
        let mut dtype = wanted;
        while !shape.row().is_multiple_of(dtype.block()) {
            dtype = less_aligned(dtype);
        }
        dtype
    }

    fn wanted(&self, name: &str, shape: &Shape, facts: &Facts) -> DType {
        if !self.base.is_quantized() {
            return self.base;
        }
        let part = part(name, facts.tied);
        if self.base == DType::MXFP4 {
            // Made for experts: what every token passes keeps 8 bits. A dense model in MXFP4 is for measuring.
            let expert = shape.dims().len() == 3;
            return if part == Head || (facts.experts > 0 && !expert) { DType::Q8_0 } else { DType::MXFP4 };
        }
        if part == Head && self.base != DType::Q8_0 {
            return DType::Q6_K;
        }
        // Mixtral: keys and values are so few beside eight experts that 8 bits cost nothing.
        if facts.experts == 8 && matches!(part, Key | Value) {
            return DType::Q8_0;
        }
        let layer = layer(name).unwrap_or(0);
        let rule = self.rules.iter().find(|Rule(of, at, _)| *of == part && at.holds(layer, facts));
        rule.map_or(self.base, |Rule(.., dtype)| *dtype)
    }
}

impl Where {
    fn holds(self, i: usize, facts: &Facts) -> bool {
        let n = facts.layers;
        match self {
            All => true,
            First(k) => i < k,
            FirstOf(parts) => i < n / parts,
            More => i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2,
            Grouped(least) => facts.group >= least,
        }
    }
}

fn part(name: &str, tied: bool) -> TensorKind {
    match name.trim_end_matches(".weight").rsplit('.').next().unwrap_or_default() {
        "output" => Head,
        "token_embd" if tied => Head,
        "attn_k" => Key,
        "attn_v" => Value,
        "attn_output" => AttnOutput,
        "ffn_down" | "ffn_down_exps" => Down,
        _ => Other,
    }
}

fn layer(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

/// Whether a tensor is a large matrix. Biases, norms and routers keep all their bits.
fn is_quantized(name: &str, shape: &Shape) -> bool {
    shape.dims().len() > 1
        && name.ends_with(".weight")
        && !name.ends_with("_norm.weight")
        && !name.contains("ffn_gate_inp")
}

/// What stands in for a type whose blocks are too long for the rows.
fn less_aligned(dtype: DType) -> DType {
    match dtype {
        DType::Q2_K | DType::Q3_K => DType::Q4_0,
        DType::Q4_K => DType::Q5_0,
        DType::Q5_K => DType::Q5_1,
        DType::Q6_K => DType::Q8_0,
        DType::IQ4_XS => DType::IQ4_NL,
        _ => DType::F16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant;

    const LLAMA: Facts = Facts { layers: 16, group: 4, experts: 0, tied: true };

    fn dtype(preset: &str, name: &str, shape: &[usize], facts: &Facts) -> DType {
        Preset::parse(preset).unwrap().dtype(name, &Shape::new(shape), facts)
    }

    #[test]
    fn presets_give_more_bits_to_what_matters_more() {
        let of = |preset, name: &str| dtype(preset, name, &[512, 2048], &LLAMA);
        assert_eq!(of("Q4_K_M", "blk.0.attn_v.weight"), DType::Q6_K);
        assert_eq!(of("Q4_K_M", "blk.2.attn_v.weight"), DType::Q4_K);
        assert_eq!(of("Q4_K_M", "blk.4.ffn_down.weight"), DType::Q6_K);
        assert_eq!(of("Q4_K_M", "blk.4.ffn_up.weight"), DType::Q4_K);
        assert_eq!(of("q3_k_m", "blk.1.attn_v.weight"), DType::Q5_K);
        assert_eq!(of("q3_k_m", "blk.1.ffn_down.weight"), DType::Q4_K);
        assert_eq!(of("iq4_xs", "blk.9.attn_v.weight"), DType::Q5_K);
        assert_eq!(of("q2_k", "blk.9.attn_v.weight"), DType::Q4_K);
        for preset in Preset::names() {
            let norm = dtype(preset, "blk.0.attn_norm.weight", &[2048], &LLAMA);
            assert_eq!(norm, DType::F32, "{preset}");
        }
    }

    #[test]
    fn the_head_keeps_six_bits_whether_tied_or_not() {
        let untied = Facts { tied: false, ..LLAMA };
        for (preset, want) in
            [("q4_0", DType::Q6_K), ("q8_0", DType::Q8_0), ("f16", DType::F16), ("mxfp4", DType::Q8_0)]
        {
            assert_eq!(dtype(preset, "token_embd.weight", &[99, 256], &LLAMA), want, "{preset}");
            assert_eq!(dtype(preset, "output.weight", &[99, 256], &untied), want, "{preset}");
        }
        assert_eq!(dtype("q4_0", "token_embd.weight", &[99, 256], &untied), DType::Q4_0);
    }

    #[test]
    fn short_rows_get_shorter_blocks() {
        let of = |preset, k| dtype(preset, "blk.0.ffn_up.weight", &[64, k], &LLAMA);
        assert_eq!((of("q4_k", 2880), of("q6_k", 2880), of("q5_k", 2880)), (DType::Q5_0, DType::Q8_0, DType::Q5_1));
        assert_eq!((of("iq4_xs", 96), of("q4_0", 100)), (DType::IQ4_NL, DType::F16));
    }

    #[test]
    fn experts_alone_are_mxfp4() {
        let facts = Facts { experts: 32, ..LLAMA };
        assert_eq!(dtype("mxfp4", "blk.0.ffn_up_exps.weight", &[32, 64, 2880], &facts), DType::MXFP4);
        assert_eq!(dtype("mxfp4", "blk.0.attn_q.weight", &[64, 2880], &facts), DType::Q8_0);
        assert_eq!(dtype("mxfp4", "blk.0.attn_q.weight", &[64, 2880], &LLAMA), DType::MXFP4);
        assert_eq!(dtype("q4_k_m", "blk.3.attn_k.weight", &[64, 256], &Facts { experts: 8, ..LLAMA }), DType::Q8_0);
        assert_eq!(dtype("q4_k_m", "blk.3.ffn_gate_inp.weight", &[8, 256], &facts), DType::F32);
    }

    #[test]
    fn every_format_has_a_preset_of_its_name() {
        for dtype in quant::SUPPORTED {
            assert_eq!(Preset::parse(dtype.name()).unwrap().base, *dtype);
        }
        assert!(Preset::parse("q9_z").unwrap_err().to_string().contains("q4_k_m"));
    }
}
