//! Every shader that any op asks for, on devices of several kinds.

use std::collections::HashMap;
use wgpu_llm::low_level::base::Meta;
use wgpu_llm::low_level::gpu::probe;
use wgpu_llm::low_level::gpu::roofline::{self, Limit};
use wgpu_llm::low_level::gpu::{Target, expand};
use wgpu_llm::low_level::ops::{AnyOp, Caps, Pass};

/// A dispatch of one case, and where it came from.
#[allow(dead_code)]
pub struct Variant {
    /// `matmul vec_subgroups: matmul_vec q4_k [SUBGROUPS, X4]`
    pub name: String,
    pub pass: Pass,
    /// Scratch buffers of its kernel.
    pub scratch: usize,
    /// Sources of its case.
    pub sources: usize,
    /// Those that are updated beside the result.
    pub updates: std::ops::Range<usize>,
}

/// Devices of several kinds: what WebGPU promises, and what else there may be.
pub fn presets() -> Vec<(&'static str, Caps)> {
    let base = Caps::BASELINE;
    let sizes = |min, max| Caps { subgroups: Some((min, max)), ..base.clone() };
    let large = Caps { max_shared: 48 << 10, max_invocations: 1024, max_binding: 1 << 30, ..base.clone() };
    vec![
        ("baseline", base.clone()),
        ("subgroups 4", sizes(4, 4)),
        ("subgroups 8", sizes(8, 8)),
        ("subgroups 32", sizes(32, 32)),
        ("subgroups 64", sizes(64, 64)),
        ("subgroups 4 to 128", sizes(4, 128)),
        ("f16", Caps { f16: true, ..base.clone() }),
        ("subnormal halves", Caps { halves: true, ..base.clone() }),
        (
            "all",
            Caps { f16: true, halves: true, dot4: true, coop: Some(16), subgroups: Some((32, 32)), ..large.clone() },
        ),
        (
            "matrices of 16, subgroups 32 to 64",
            Caps {
                f16: true,
                halves: true,
                coop: Some(16),
                subgroups: Some((32, 64)),
                chosen_subgroup: Some(64),
                ..large.clone()
            },
        ),
        ("matrices of 8", Caps { f16: true, coop: Some(8), subgroups: Some((32, 32)), ..large.clone() }),
        ("matrices of 8, subgroups 8", Caps { f16: true, coop: Some(8), subgroups: Some((8, 8)), ..large }),
    ]
}

/// The dispatches of all cases of all ops under `caps`, one for each text.
pub fn variants(caps: &Caps) -> Vec<Variant> {
    let mut all: HashMap<String, Variant> = HashMap::new();
    for case in AnyOp::cases() {
        let src: Vec<Meta> = case.src.iter().map(|s| s.meta).collect();
        let dst = case.op.infer(&src).expect("cases are well formed");
        let kernels = case.op.gpu(&src, &dst, caps);
        assert!(!kernels.is_empty(), "{:?} has no kernel", case.op);
        for kernel in kernels {
            let (scratch, sources) = (kernel.scratch.len(), src.len());
            for pass in kernel.passes {
                let quant = pass.quant.map_or(String::new(), |q| format!(" {q}"));
                let (op, variant, shader) = (case.op.name(), kernel.variant, pass.shader);
                let name = format!("{op} {variant}: {shader}{quant} {:?} {:?}", pass.flags, pass.consts);
                let text = expand(&pass, Target::Naga).unwrap_or_else(|e| panic!("{name}: {e}")).text;
                // Tiles of the same text may differ in what they bind, so the op belongs to the key.
                all.entry(format!("{op} {text}")).or_insert(Variant {
                    name,
                    pass,
                    scratch,
                    sources,
                    updates: case.op.updates(),
                });
            }
        }
    }
    let apart = Limit::ALL.into_iter().filter_map(|limit| roofline::kernel(limit, caps, 1 << 20, 64));
    let subgroups = caps.subgroups.map(|_| probe::subgroups(64));
    for kernel in apart.chain([probe::halves()]).chain(subgroups) {
        let (scratch, sources) = (kernel.scratch.len(), 1);
        for pass in kernel.passes {
            let name = format!("apart {}: {} {:?}", kernel.variant, pass.shader, pass.flags);
            all.insert(name.clone(), Variant { name, pass, scratch, sources, updates: 0..0 });
        }
    }
    let mut all: Vec<Variant> = all.into_values().collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}
