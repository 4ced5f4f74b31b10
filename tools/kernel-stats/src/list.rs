//! The kernels that are looked at: what `Op::gpu` lists for a device, at stated shapes.
//!
//! Nothing of a kernel is known here, so that the list follows the ops by itself: shapes come in, passes come out. An op's first
//! kernel is always in it; all of them where the variants themselves are of interest.

use std::collections::HashSet;
use wgpu_llm::low_level::base::{DType, Meta, Role};
use wgpu_llm::low_level::gpu::{Target, expand};
use wgpu_llm::low_level::ops::*;
use wgpu_llm::low_level::quant::{self, Precision};

/// One kernel.
#[derive(Debug, Clone)]
pub struct Item {
    /// The table it stands in: `Mat-vec`.
    pub group: &'static str,
    /// What it is called, in records too: shader, what it is for, variant.
    pub name: String,
    /// Its dispatch.
    pub pass: Pass,
    /// Its WGSL: kernels of the same text are compiled once.
    pub text: String,
}

/// Which of an op's kernels.
#[derive(Clone, Copy, PartialEq)]
enum Which {
    First,
    /// The first one whose variant has this word.
    Of(&'static str),
    All,
}
use Which::{All, First, Of};

struct List<'a> {
    caps: &'a Caps,
    items: Vec<Item>,
    /// Passes of other shaders than are meant: norms before products, sums behind them.
    later: Vec<Item>,
    texts: HashSet<String>,
}

/// All kernels for devices with `caps`. Fails if an op and a shape do not fit, or a shader cannot be expanded.
pub fn list(caps: &Caps) -> Result<Vec<Item>, String> {
    let mut list = List { caps, items: Vec::new(), later: Vec::new(), texts: HashSet::new() };
    list.vectors()?;
    list.fused()?;
    list.experts()?;
    list.tiles()?;
    list.bytes()?;
    list.attention()?;
    list.norms()?;
    list.rows()?;
    Ok(list.finish())
}

const EPS: f32 = 1e-5;
const RMS: Option<PreNorm> = Some(PreNorm::Rms { eps: EPS, params: 1 });

fn positions(tokens: usize) -> Meta {
    Meta::new(DType::U32, [tokens])
}

/// Of one sequence of 4096 tokens.
fn places(tokens: usize) -> Meta {
    positions(places_len(tokens, 1, 4096 / PAGE_CELLS))
}

fn role(tokens: usize) -> Role {
    if tokens <= 8 { Role::Answer } else { Role::Prompt }
}

impl List<'_> {
    /// Adds kernels of `op`: the passes of shader `main`; others later, where they are then still new.
    fn add(
        &mut self,
        group: &'static str,
        main: &str,
        what: &str,
        (op, src, which): (impl Into<AnyOp>, &[Meta], Which),
    ) -> Result<(), String> {
        let op = op.into();
        let dst = op.infer(src).map_err(|e| format!("{what}: {e}"))?;
        let mut kernels = op.gpu(src, &dst, self.caps);
        match which {
            First => kernels.truncate(1),
            Of(word) => {
                kernels.retain(|k| k.variant.contains(word));
                kernels.truncate(1);
            }
            All => {}
        }
        for kernel in kernels {
            let mut own = HashSet::new();
            for pass in kernel.passes {
                let text = expand(&pass, Target::Naga).map_err(|e| format!("{what}: {e}"))?.text;
                let name = format!("{} {what} {}", pass.shader, kernel.variant);
                let is_main = pass.shader == main;
                let item = Item { group, name, pass, text };
                // Long work is cut into passes of the same text.
                if is_main && own.insert(item.text.clone()) {
                    self.texts.insert(item.text.clone());
                    self.push(item);
                } else if !is_main {
                    self.later.push(item);
                }
            }
        }
        Ok(())
    }

    /// Adds an item; variants of the same name, and unlike pieces, are numbered.
    fn push(&mut self, mut item: Item) {
        let alike =
            |i: &&Item| i.name == item.name || i.name.strip_prefix(&item.name).is_some_and(|r| r.starts_with(" #"));
        let count = self.items.iter().filter(alike).count();
        if count > 0 {
            item.name = format!("{} #{}", item.name, count + 1);
        }
        self.items.push(item);
    }

    /// All items, group by group.
    fn finish(mut self) -> Vec<Item> {
        let mut groups: Vec<&str> = Vec::new();
        self.items.iter().for_each(|i| {
            if !groups.contains(&i.group) {
                groups.push(i.group)
            }
        });
        for item in std::mem::take(&mut self.later) {
            if self.texts.insert(item.text.clone()) {
                self.push(item);
            }
        }
        self.items.sort_by_key(|i| groups.iter().position(|g| *g == i.group));
        self.items
    }

    /// Decoding: products of a few tokens, and the same behind a norm.
    fn vectors(&mut self) -> Result<(), String> {
        const GROUP: &str = "Mat-vec";
        for dtype in quant::SUPPORTED {
            let which = if [DType::Q4_0, DType::F16].contains(dtype) { All } else { First };
            for (n, tokens, which) in [(4096, 1, which), (2048, 1, First), (4096, 4, First), (4096, 8, First)] {
                let src = [Meta::new(*dtype, [n, n]), Meta::f32([tokens, n])];
                self.add(GROUP, "matmul_vec", &format!("{dtype} {n}x{n} x{tokens}"), (MatMul, &src, which))?;
            }
            let op = Linear { norm: RMS, ..Linear::alone(false, false, 1) };
            for (n, tokens, which) in [(4096, 1, which), (2048, 1, First)] {
                let src = [Meta::new(*dtype, [n, n]), Meta::f32([tokens, n]), Meta::f32([n])];
                self.add(GROUP, "matmul_vec", &format!("rms {dtype} {n}x{n} x{tokens}"), (op, &src, which))?;
            }
        }
        Ok(())
    }

    /// Decoding: what models put around products.
    fn fused(&mut self) -> Result<(), String> {
        const GROUP: &str = "Mat-vec, fused";
        let (x, n, vector) = (Meta::f32([1, 4096]), 4096, Meta::f32([4096]));
        for dtype in [DType::Q4_0, DType::Q4_K, DType::F16] {
            let (w, up) = (Meta::new(dtype, [n, n]), Meta::new(dtype, [14336, n]));
            let plain = Linear::alone(false, false, 1);
            let bias = Linear { bias: true, ..plain };
            let layer = Linear { norm: Some(PreNorm::Layer { eps: EPS, params: 2 }), ..plain };
            let glu = Linear { parts: 2, norm: RMS, then: Then::Glu(Glu::Plain(Act::Silu)), ..plain };
            let add = Linear { then: Then::Add { scale: 1.0 }, ..plain };
            let src: [(&str, Linear, &[Meta]); 4] = [
                ("bias", bias, &[w, x, vector]),
                ("layer", layer, &[w, x, vector, vector]),
                ("rms glu", glu, &[up, up, x, vector]),
                ("add", add, &[w, x, x]),
            ];
            for (what, op, src) in src {
                self.add(GROUP, "matmul_vec", &format!("{what} {dtype} x1"), (op, src, First))?;
            }
        }
        let many = [Meta::new(DType::Q4_0, [n, n]), Meta::f32([8, n]), vector];
        let op = Linear { norm: RMS, ..Linear::alone(false, false, 8) };
        self.add(GROUP, "matmul_vec", "rms q4_0 x8", (op, &many, First))
    }

    /// Experts: 4 of 32, 2880 channels, as gpt-oss has it (2048 where blocks of 256 want it).
    fn experts(&mut self) -> Result<(), String> {
        const GROUP: &str = "Experts";
        let tile = |tokens: usize| if tokens > 8 { "matmul_tile" } else { "matmul_vec" };
        for dtype in [DType::Q4_0, DType::Q8_0, DType::Q4_K, DType::MXFP4] {
            let n = if dtype == DType::Q4_K { 2048 } else { 2880 };
            let w = Meta::new(dtype, [32, n, n]);
            for tokens in [1, 512] {
                let (x, ids) = (Meta::f32([tokens, n]), Meta::f32([tokens, 4]));
                let name = format!("{dtype} 4/32 {n}x{n} x{tokens}");
                self.add(GROUP, tile(tokens), &name, (MatMulId, &[w, x, ids], First))?;
                let plain = Linear::alone(true, false, tokens);
                let glu = Linear { parts: 2, norm: RMS, then: Then::Glu(Glu::Plain(Act::Silu)), ..plain };
                let src = [w, w, x, ids, Meta::f32([n])];
                self.add(GROUP, tile(tokens), &format!("rms glu {name}"), (glu, &src, First))?;
                let sum = Linear { then: Then::Combine { add: Some(1.0) }, ..plain };
                let src = [w, Meta::f32([tokens, 4, n]), ids, ids, x];
                self.add(GROUP, tile(tokens), &format!("combine {name}"), (sum, &src, First))?;
            }
        }
        Ok(())
    }

    /// Prompts: products of many tokens.
    fn tiles(&mut self) -> Result<(), String> {
        const GROUP: &str = "Tiles";
        for dtype in quant::SUPPORTED {
            let all = [DType::Q4_0, DType::F16].contains(dtype);
            let sizes: &[usize] = if all { &[512, 16, 32] } else { &[512] };
            for tokens in sizes {
                let src = [Meta::new(*dtype, [4096, 4096]), Meta::f32([*tokens, 4096])];
                let which = if all && *tokens == 512 { All } else { First };
                self.add(GROUP, "matmul_tile", &format!("{dtype} 4096x4096 x{tokens}"), (MatMul, &src, which))?;
            }
        }
        Ok(())
    }

    /// Products in bytes, where the device has instructions for them.
    fn bytes(&mut self) -> Result<(), String> {
        const GROUP: &str = "In bytes";
        for dtype in quant::SUPPORTED.iter().filter(|dtype| self.caps.dot4 && dtype.is_quantized()) {
            for (main, tokens) in [("matmul_vec", 1), ("matmul_vec", 8), ("matmul_tile_int8", 512)] {
                let op = Linear { precision: Precision::Eight, ..Linear::alone(false, false, tokens) };
                let src = [Meta::new(*dtype, [4096, 4096]), Meta::f32([tokens, 4096])];
                self.add(GROUP, main, &format!("int8 {dtype} 4096x4096 x{tokens}"), (op, &src, Of("int8")))?;
            }
        }
        Ok(())
    }

    /// Attention: one token over 4096 cells, and 512; 32 heads on 8.
    fn attention(&mut self) -> Result<(), String> {
        const GROUP: &str = "Attention";
        let plain = |dim: usize, tokens| Attention::plain(1.0 / (dim as f32).sqrt(), role(tokens), 4096);
        let src = |cache, heads: [usize; 2], [dim, value_dim]: [usize; 2], tokens| {
            let of = |n: usize| Meta::new(cache, [4096, heads[1], n]);
            vec![Meta::f32([tokens, heads[0], dim]), of(dim), of(value_dim), places(tokens)]
        };
        for dim in [64, 128, 256] {
            for cache in CACHE_TYPES {
                for tokens in [1, 512] {
                    let which = if dim == 128 && *cache == DType::F16 { All } else { First };
                    let name = format!("{cache} d{dim} x{tokens}");
                    let src = src(*cache, [32, 8], [dim, dim], tokens);
                    self.add(GROUP, "attention", &name, (plain(dim, tokens), &src, which))?;
                }
            }
        }
        for tokens in [1, 512] {
            // gpt-oss: sinks and windows. DeepSeek: 128 heads on one, keys that hold the values.
            let mut sinks = src(DType::F16, [64, 8], [64, 64], tokens);
            sinks.push(Meta::f32([64]));
            let op = Attention { window: 128, ..plain(64, tokens) };
            self.add(GROUP, "attention", &format!("f16 d64 sinks x{tokens}"), (op, &sinks, First))?;
            let latent = src(DType::F16, [128, 1], [576, 512], tokens);
            self.add(GROUP, "attention", &format!("f16 d576 x{tokens}"), (plain(576, tokens), &latent, First))?;
        }
        Ok(())
    }

    /// Norms, rotation, the cache.
    fn norms(&mut self) -> Result<(), String> {
        const GROUP: &str = "Norms, rotation, cache";
        let (x, w, eps) = (Meta::f32([1, 4096]), Meta::f32([4096]), EPS);
        self.add(GROUP, "rms_norm", "4096", (RmsNorm { eps }, &[x, w], All))?;
        self.add(GROUP, "rms_norm", "128", (RmsNorm { eps }, &[Meta::f32([1, 32, 128]), Meta::f32([128])], All))?;
        self.add(GROUP, "layer_norm", "4096", (LayerNorm { eps }, &[x, w, w], All))?;
        self.add(GROUP, "rms_norm", "4096 add", (NormAdd { eps, scale: 1.0 }, &[x, x, w], All))?;
        let (pos, turns) = (positions(1), Meta::new(DType::U32, [64]));
        let rope = Rope { pairs: Pairs::NeoX, mscale: 1.0 };
        self.add(GROUP, "rope", "d128", (rope, &[Meta::f32([1, 32, 128]), pos, turns], First))?;
        let of_heads = |heads: usize| Meta::f32([1, heads, 128]);
        for cache in CACHE_TYPES {
            let cells = Meta::new(*cache, [4096, 8, 128]);
            let stored = [cells, cells, of_heads(8), of_heads(8), places(1)];
            self.add(GROUP, "kv_store", &format!("{cache} d128"), (KvStore { group: 0 }, &stored, First))?;
            let src = [of_heads(40), of_heads(8), places(1), turns, cells, cells];
            let op = RopeStore { rope, norm: None, group: 0 };
            self.add(GROUP, "rope_store", &format!("{cache} d128"), (op, &src, First))?;
        }
        let cells = Meta::new(DType::F16, [4096, 8, 128]);
        let norm = Some(HeadNorm { eps, wide: false, after: false, layer: false });
        let src = [of_heads(40), of_heads(8), places(1), turns, cells, cells, Meta::f32([128]), Meta::f32([128])];
        self.add(GROUP, "rope_store", "rms f16 d128", (RopeStore { rope, norm, group: 0 }, &src, All))
    }

    /// Tables, elementwise ops, routing, sampling.
    fn rows(&mut self) -> Result<(), String> {
        const GROUP: &str = "Rows, routing, sampling";
        let (x, many) = (Meta::f32([1, 4096]), Meta::f32([1, 4, 4096]));
        for dtype in [DType::Q4_0, DType::Q6_K, DType::F16] {
            let src = [Meta::new(dtype, [32000, 4096]), positions(1)];
            self.add(GROUP, "get_rows", &format!("{dtype}"), (GetRows { scale: 1.0 }, &src, First))?;
        }
        self.add(GROUP, "get_rows", "f32", (GetRows { scale: 1.0 }, &[Meta::f32([512, 4096]), positions(1)], All))?;
        self.add(GROUP, "add", "4096", (Add { scale: 1.0 }, &[x, x], First))?;
        self.add(GROUP, "mul", "4096", (Mul, &[x, x], First))?;
        self.add(GROUP, "glu", "4096", (Glu::Plain(Act::Silu), &[x, x], First))?;
        self.add(GROUP, "unary", "softcap 4096", (Unary::Softcap(30.0), &[x], First))?;
        self.add(GROUP, "combine", "4x4096", (Combine { scale: 1.0 }, &[many, Meta::f32([1, 4])], First))?;
        for (name, gate, used, experts) in
            [("4/32", Gate::SoftmaxOfChosen, 4, 32), ("8/128", Gate::Softmax, 8, 128), ("8/256", Gate::Sigmoid, 8, 256)]
        {
            let op = Router { gate, used, normalize: true, scale: 1.0 };
            self.add(GROUP, "router", name, (op, &[Meta::f32([1, experts])], First))?;
        }
        let token = positions(1);
        let src = [token, Meta::f32([1, 128256]), Meta::new(DType::U32, [8]), token];
        self.add(GROUP, "sample_scan", "128256", (Sample, &src, First))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Info;
    use crate::spirv::module;

    fn caps() -> Vec<Caps> {
        let large = Caps { max_shared: 64 << 10, max_invocations: 1024, max_binding: 1 << 30, ..Caps::BASELINE };
        let all = Caps { subgroups: Some((64, 64)), f16: true, coop: Some(16), dot4: true, ..large.clone() };
        vec![Caps::BASELINE, large, all]
    }

    #[test]
    fn every_format_is_in_it_once() {
        for caps in caps() {
            let all = list(&caps).unwrap();
            let names: HashSet<&str> = all.iter().map(|i| i.name.as_str()).collect();
            assert_eq!(names.len(), all.len());
            for dtype in quant::SUPPORTED {
                for (shader, tokens) in [("matmul_vec", "x1 "), ("matmul_vec", "x8 "), ("matmul_tile", "x512 ")] {
                    let start = format!("{shader} {dtype} 4096x4096 {tokens}");
                    assert!(names.iter().any(|n| n.starts_with(&start)), "{start}");
                }
            }
        }
    }

    /// Kernels whose work is counted: were it forgotten, a change for the worse would not be seen.
    #[test]
    fn products_and_attention_say_what_a_step_computes() {
        let caps = caps().pop().expect("there are some");
        let info = Info { name: String::new(), driver: String::new(), radv: true, caps, dot: true, int8: true };
        for item in list(&info.caps).unwrap() {
            if ["matmul_vec", "matmul_tile", "matmul_tile_int8", "attention"].contains(&item.pass.shader) {
                let made = module(&item.pass, &info).unwrap_or_else(|e| panic!("{}: {e}", item.name));
                assert!(made.macs.is_some_and(|n| n > 0), "shaders/{}.wgsl has no MACS", item.pass.shader);
            }
        }
    }
}
