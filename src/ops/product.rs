//! How matrix products run on a GPU: the shaders' parameters, variants and shards, for `matmul`, `matmul_id` and `linear`.
//!
//! Activations are read four at a time where rows begin at multiples of four; whether the tensor at hand does too, only
//! the runner knows, so the variant that reads one at a time follows in the list.

mod around;
mod int8;
mod tile;

use super::linear::{Linear, Places, PreNorm, Then};
use super::{Bind, Caps, Kernel, LayerNorm, Op, Param, Pass, RmsNorm, Stack, line, weight_shards};
use crate::base::{DType, Meta, Role};
use crate::quant;
use std::ops::Range;
use tile::Tile;

/// Threads of a workgroup of `matmul_vec`.
const VEC_THREADS: u32 = 64;
/// Most steps of a thread of `matmul_vec` that are written out, with all of their weights in flight at once, rather than looped over.
const FEW_STEPS: usize = 3;
/// Bytes of workgroup memory of `matmul_tile` where subgroups multiply matrices.
const COOP_SHARED: u32 = 24 << 10;
/// Most tokens that `matmul_vec` multiplies at a time.
const VEC_TOKENS: usize = 8;

/// A product with its sources.
pub(super) struct Product<'a> {
    pub op: &'a Linear,
    pub src: &'a [Meta],
    pub caps: &'a Caps,
    at: Places,
    /// All weights, as one.
    w: Meta,
    /// The activations that are multiplied: source or, normalised before, scratch.
    x: Meta,
    x_bind: Bind,
    /// Whether the norm is part of the product.
    fused: bool,
}

/// The ways of reading activations and of adding up, best first.
struct Variant {
    name: &'static str,
    /// Its name where the norm is a pass before.
    after_norm: &'static str,
    flags: &'static [&'static str],
    /// See [`Kernel::rounding`].
    rounding: f64,
}

const fn exact(name: &'static str, after_norm: &'static str, flags: &'static [&'static str]) -> Variant {
    Variant { name, after_norm, flags, rounding: 0.0 }
}

const fn halves(name: &'static str, after_norm: &'static str, flags: &'static [&'static str]) -> Variant {
    Variant { name, after_norm, flags, rounding: HALVES }
}

/// What factors rounded to f16 add to the error: twice a third of (2⁻¹² of the value)², with room.
const HALVES: f64 = 1e-6;

const VEC: [Variant; 4] = [
    exact("vec_subgroups_x4", "norm_vec_subgroups_x4", &["SUBGROUPS", "X4"]),
    exact("vec_subgroups", "norm_vec_subgroups", &["SUBGROUPS"]),
    exact("vec_shared_x4", "norm_vec_shared_x4", &["X4"]),
    exact("vec_shared", "norm_vec_shared", &[]),
];
/// The variant of [`Tile::BIG`].
const BIG: &str = "tile_big_x4";
/// Those in f16 come after those in f32: they are taken where they were measured to be faster and found to be right.
const TILE: [Variant; 6] = [
    exact("tile_x4", "norm_tile_x4", &["X4"]),
    exact("tile", "norm_tile", &[]),
    exact(BIG, "norm_tile_big_x4", &["X4"]),
    halves("tile_f16", "norm_tile_f16", &["X4", "F16", "SCALED"]),
    halves("tile_coop16", "norm_tile_coop16", &["X4", "F16", "SCALED", "SUBGROUPS", "COOP", "COOP16"]),
    halves("tile_coop8", "norm_tile_coop8", &["X4", "F16", "SCALED", "SUBGROUPS", "COOP"]),
];

impl<'a> Product<'a> {
    pub fn new(op: &'a Linear, src: &'a [Meta], caps: &'a Caps) -> Self {
        let at = op.places();
        let (w, x, x_bind) = (Stack::meta(&src[..op.parts]), src[at.x], Bind::Src(at.x));
        Product { op, src, caps, at, w, x, x_bind, fused: op.norm.is_some() }
    }

    /// The kernels, best first.
    pub fn kernels(&self) -> Vec<Kernel> {
        // One family for each role: they add up in different orders, and the number of rows must not decide.
        match self.op.role {
            // Answers are rounded only if that was asked for.
            Role::Answer => [self.int8_vec(), self.vec()].concat(),
            Role::Prompt | Role::Piece => self.tile().into_iter().chain(self.int8_tile()).collect(),
        }
    }

    /// Kernels that read each weight once for a few tokens, or for one (token, used) pair.
    fn vec(&self) -> Vec<Kernel> {
        let kernel = |p: &Product, v: &Variant| Kernel {
            variant: if p.fused == p.op.norm.is_some() { v.name } else { v.after_norm },
            passes: p.passes(|s| p.vec_pass(v, s)),
            scratch: vec![],
            rounding: v.rounding,
        };
        let possible = |p: &Product| VEC.iter().filter(|v| p.possible(v)).map(|v| kernel(p, v)).collect::<Vec<_>>();
        let mut all = possible(self);
        if self.fused {
            let (apart, norm) = self.after_norm();
            all.extend(possible(&apart).into_iter().take(1).map(|k| prepend(&norm, k)));
        }
        all
    }

    /// Kernels for many tokens: the norm comes first, and expert sums come last, in passes of their own.
    fn tile(&self) -> Vec<Kernel> {
        if self.fused {
            let (apart, norm) = self.after_norm();
            return apart.tile().into_iter().map(|k| prepend(&norm, k)).collect();
        }
        let mut possible: Vec<&Variant> = TILE.iter().filter(|v| self.possible(v)).collect();
        let best = Tile::wants_big(self.rows(), self.x.outer(), self.caps) && self.op.role == Role::Prompt;
        if let Some(at) = possible.iter().position(|v| v.name == BIG).filter(|_| best) {
            possible[..=at].rotate_right(1);
        }
        possible.into_iter().map(|v| self.tile_kernel(v)).collect()
    }

    fn tile_kernel(&self, v: &Variant) -> Kernel {
        let apart = !self.fused && self.op.norm.is_some();
        let mut kernel = Kernel {
            variant: if apart { v.after_norm } else { v.name },
            passes: self
                .passes(|shard| self.tile_pass(v, shard))
                .into_iter()
                .flat_map(|p| self.cut(p, self.shape(v).rows))
                .collect(),
            scratch: Vec::new(),
            rounding: v.rounding,
        };
        if let Some(ids) = self.ids() {
            kernel = self.sorted(kernel, ids, self.shape(v).tokens);
        }
        if v.flags.contains(&"SCALED") {
            let at = kernel.scratch.len();
            let scales = Bind::Scratch(at);
            kernel = kernel.rebind(|bind| if bind == SCALES { scales } else { bind });
            kernel.passes.insert(0, self.scale_pass(scales));
            kernel.scratch.push(4 * self.x.shape.rows());
        }
        let Some(ids) = self.ids() else { return kernel };
        if let Then::Combine { .. } = self.op.then {
            return self.combine(kernel, Meta::f32([ids.outer(), ids.shape[1], self.rows()]));
        }
        kernel
    }

    /// This product of activations that a pass before has normalised, and that pass.
    fn after_norm(&self) -> (Product<'a>, Kernel) {
        let norm = self.op.norm.expect("a norm");
        let sources: Vec<usize> = [self.at.x].into_iter().chain(self.at.norm.clone()).collect();
        let metas: Vec<Meta> = sources.iter().map(|i| self.src[*i]).collect();
        let normed = Meta::f32(self.x.shape);
        let mut kernels = match norm {
            PreNorm::Rms { eps, .. } => RmsNorm { eps }.gpu(&metas, &normed, self.caps),
            PreNorm::Layer { eps, .. } => LayerNorm { eps }.gpu(&metas, &normed, self.caps),
        };
        let kernel = kernels.remove(0).rebind(|bind| match bind {
            Bind::Src(i) => Bind::Src(sources[i]),
            _ => NORMED,
        });
        let product = Product { at: self.at.clone(), x: normed, x_bind: NORMED, fused: false, ..*self };
        (product, Kernel { scratch: vec![normed.span_bytes()], ..kernel })
    }

    /// Rows of one matrix of weights: of all, or of one expert.
    fn rows(&self) -> usize {
        self.w.shape[self.w.shape.dims().len() - 2]
    }

    fn k(&self) -> usize {
        self.w.shape.row()
    }

    /// Expert ids `[tokens, used]`.
    fn ids(&self) -> Option<&Meta> {
        self.at.ids.map(|i| &self.src[i])
    }

    fn possible(&self, variant: &Variant) -> bool {
        let x4 = self.k().is_multiple_of(8) && self.x.stride.is_multiple_of(4);
        let has = |flag| variant.flags.contains(&flag);
        let unit = if has("COOP16") { 16 } else { 8 };
        // Weights that are exact in f32 only are not rounded to f16.
        let halves = self.caps.f16 && (self.w.dtype.is_quantized() || self.w.dtype == DType::F16);
        let fits = variant.name != BIG || !self.op.ids && Tile::fits_big(self.rows(), self.x.outer());
        fits
            && (x4 || !has("X4"))
            && (self.caps.subgroups.is_some() || !has("SUBGROUPS"))
            && (halves || !has("F16"))
            && (!has("COOP") || self.caps.coop == Some(unit) && self.coop_threads(unit).is_some())
            // naga wants subgroups' matrices in control flow that it knows to be uniform; a tile's expert comes from memory.
            && (!has("COOP") || self.caps.max_shared >= COOP_SHARED && !self.op.ids)
    }

    /// Threads of a tile whose subgroups multiply matrices of `unit`², two by two each, if their size is known.
    fn coop_threads(&self, unit: u32) -> Option<u32> {
        let threads = self.caps.subgroup_size()? * if unit == 16 { 4 } else { 8 };
        // The shader deals out rows to threads by 64.
        (threads.is_multiple_of(64) && threads <= self.caps.max_invocations).then_some(threads)
    }

    fn passes(&self, pass: impl Fn((usize, Range<usize>)) -> Pass) -> Vec<Pass> {
        weight_shards(&self.w, self.caps).into_iter().enumerate().map(pass).collect()
    }

    /// What both shaders share, for one shard of the weights' rows.
    fn pass(&self, variant: &Variant, (part, shard): (usize, Range<usize>)) -> Pass {
        let (rows, k) = (self.rows(), self.k());
        let of = Stack { first: 0, count: self.op.parts, interleaved: self.op.interleaved() };
        let planes = quant::gpu_planes(self.w.dtype, shard.len(), k).planes;
        let halved = if self.op.interleaved() { 2 } else { 1 };
        let mut pass = Pass {
            quant: Some(self.w.dtype),
            flags: variant.flags.to_vec(),
            params: vec![
                ("planes", planes.into()),
                ("k", k.into()),
                ("row_w8", (quant::gpu_padded(k) / 8).into()),
                ("n", rows.into()),
                ("y_stride", (rows / halved).into()),
                ("x_stride", self.x.stride.into()),
            ],
            binds: vec![
                ("wq", Bind::Shard { of, part }),
                ("wd", Bind::Shard { of, part }),
                ("x", self.x_bind),
                ("y", Bind::Dst),
            ],
            ..Pass::default()
        };
        if self.caps.halves {
            pass.flags.push("HALF");
        }
        if self.op.bias {
            let of = Stack { first: self.at.bias.start, ..of };
            pass.flags.push("BIAS");
            pass.binds.push(("bias", if of.count == 1 { Bind::Src(of.first) } else { Bind::Stack(of) }));
        }
        match self.ids() {
            None => pass.params.extend([("rows", shard.len().into()), ("first", shard.start.into())]),
            Some(ids) => {
                let step = if self.x.shape.dims().len() == 2 { 0 } else { k };
                pass.flags.push("IDS");
                pass.params.extend::<[(&str, Param); 5]>([
                    ("rows", rows.into()),
                    ("first", (shard.start / rows).into()),
                    ("experts", (shard.len() / rows).into()),
                    ("used", ids.shape[1].into()),
                    ("x_step", step.into()),
                ]);
            }
        }
        pass
    }

    /// What happens to the sums before they are stored.
    fn epilogue(&self, pass: &mut Pass) {
        let (flags, (a, b)) = match self.op.then {
            Then::Store => return,
            Then::Unary(unary) => ([vec!["POINTWISE"], unary.flags()].concat(), unary.constants()),
            Then::Glu(glu) => ([vec!["POINTWISE"], glu.flags()].concat(), glu.constants()),
            Then::Add { scale } | Then::Combine { add: Some(scale) } => (vec!["ADD"], (scale, 0.0)),
            Then::Combine { add: None } => return,
        };
        pass.flags.push("EPILOGUE");
        pass.flags.extend(flags);
        pass.params.extend([("a", Param::F32(a)), ("b", Param::F32(b))]);
        if let Some(residual) = self.at.residual {
            pass.params.push(("residual_stride", self.src[residual].stride.into()));
            pass.binds.push(("residual", Bind::Src(residual)));
        }
    }

    /// How many tokens `matmul_vec` multiplies at a time, and how often.
    fn vec_columns(&self) -> (usize, usize) {
        let tokens = if self.op.ids { 1 } else { self.x.outer() };
        // Groups are of one size: batches of many answers are multiples of the largest.
        let columns = (1..=VEC_TOKENS).rev().find(|n| tokens.is_multiple_of(*n)).unwrap_or(1);
        (columns, tokens / columns)
    }

    fn vec_pass(&self, variant: &Variant, shard: (usize, Range<usize>)) -> Pass {
        let rows = if self.op.ids { self.rows() } else { shard.1.len() };
        // More rows reuse the activations more; with few rows in all, the device is better filled.
        let per_group = if rows >= 1024 { 4 } else { 2 };
        let groups = rows.div_ceil(per_group);
        let part = shard.0;
        let (columns, column_groups) = self.vec_columns();
        let workgroups = line(groups * column_groups, self.caps);
        let mut pass = Pass { shader: "matmul_vec", workgroups, ..self.pass(variant, shard) };
        if column_groups > 1 {
            pass.flags.push("COLUMNS");
            pass.params.push(("column_groups", column_groups.into()));
        }
        pass.consts = vec![("WG", VEC_THREADS), ("ROWS", per_group as u32), ("COLS", columns as u32)];
        let steps = self.k().div_ceil(8 * VEC_THREADS as usize);
        if steps <= FEW_STEPS && !variant.flags.contains(&"DOT4") {
            pass.flags.push("FEW");
            pass.consts.push(("STEPS", steps as u32));
        }
        if quant::gpu_table(self.w.dtype) {
            pass.flags.push("TABLE");
        }
        if self.fused {
            self.norm(&mut pass);
        }
        if let Some(ids) = self.ids() {
            let combine = matches!(self.op.then, Then::Combine { .. });
            let pairs = if combine { ids.outer() } else { ids.shape.elements() };
            let [y, z, _] = line(pairs, self.caps);
            pass.workgroups = [groups as u32, y, z];
            pass.params.extend([("pairs", pairs.into()), ("ids_stride", ids.stride.into())]);
            pass.binds.push(("ids", Bind::Src(self.at.ids.expect("ids"))));
            if let Some(factors) = self.at.factors {
                pass.flags.push("COMBINE");
                pass.params.push(("factors_stride", self.src[factors].stride.into()));
                pass.binds.push(("factors", Bind::Src(factors)));
                if part > 0 {
                    // The shards before have stored their experts' share, and what is added once.
                    let scale = if let Then::Combine { add: Some(scale) } = self.op.then { scale } else { 1.0 };
                    pass.flags.extend(["EPILOGUE", "MORE"]);
                    pass.params.extend([("a", Param::F32(scale)), ("b", Param::F32(0.0))]);
                    return pass;
                }
            }
        }
        self.epilogue(&mut pass);
        pass
    }

    fn tile_pass(&self, variant: &Variant, shard: (usize, Range<usize>)) -> Pass {
        let rows = if self.op.ids { self.rows() } else { shard.1.len() };
        let mut pass = Pass { shader: "matmul_tile", ..self.pass(variant, shard) };
        let shape = self.shape(variant);
        let tokens = shape.tokens;
        pass.consts = shape.consts();
        if shape.slices > 1 {
            pass.flags.push("SLICED");
        }
        if variant.flags.contains(&"SCALED") {
            pass.binds.push(("scales", SCALES));
        }
        let columns = self.columns(&mut pass, tokens);
        pass.workgroups = [rows.div_ceil(shape.rows) as u32, columns as u32, 1];
        self.epilogue_of_tiles(&mut pass);
        pass
    }

    /// How many tiles of so many tokens there are, and where they find their tokens.
    fn columns(&self, pass: &mut Pass, tokens: usize) -> usize {
        match self.ids() {
            None => {
                pass.params.push(("tokens", self.x.outer().into()));
                self.x.outer().div_ceil(tokens)
            }
            Some(ids) => {
                pass.binds.extend([("tiles", Bind::Scratch(0)), ("order", Bind::Scratch(1))]);
                self.tiles(ids, tokens)
            }
        }
    }

    /// What happens to the sums of tiles: those of experts are summed in a pass of their own.
    fn epilogue_of_tiles(&self, pass: &mut Pass) {
        match self.op.then {
            Then::Combine { .. } => {
                let y = pass.binds.iter_mut().find(|(name, _)| *name == "y").expect("it is bound");
                y.1 = PRODUCTS;
            }
            _ => self.epilogue(pass),
        }
    }

    /// The pass in pieces of as many rows as take no longer than a dispatch may: by what is computed, or by what is read.
    fn cut(&self, pass: Pass, tile_rows: usize) -> Vec<Pass> {
        let (inputs, matrices) = match self.ids() {
            None => (self.x.outer(), 1),
            Some(ids) => (ids.shape.elements(), ids.shape.elements().min(self.w.outer())),
        };
        let row = self.w.dtype.row_bytes(self.k()).expect("rows are whole blocks");
        let of_row = (2.0 * (self.k() * inputs) as f64).max(Caps::PER_BYTE * (row * matrices) as f64);
        pass.pieces(tile_rows, tile_rows as f64 * of_row, self.caps)
    }

    /// The tile of a variant: few tokens where few share their weights, and as subgroups that multiply matrices have it.
    fn shape(&self, variant: &Variant) -> Tile {
        let coop = |unit, tokens| {
            let threads = self.coop_threads(unit).expect("it is possible");
            Tile { tokens, threads, ..Tile::PLAIN }
        };
        match variant.name {
            "tile_coop16" => coop(16, 64),
            "tile_coop8" => coop(8, 32),
            BIG => Tile::BIG,
            _ if self.op.ids => Tile { tokens: 32, ..Tile::PLAIN },
            // The slices add up in the tile's memory, which has to hold sums.
            _ if variant.flags.contains(&"F16") && self.x.outer() <= 32 => Tile { tokens: 32, ..Tile::PLAIN },
            // In slices sums have another order.
            _ if self.op.role == Role::Piece => Tile::PLAIN,
            _ => Tile::of(self.rows(), self.x.outer(), self.caps),
        }
    }

    /// Most tiles that the pairs can need: each expert may have one that is not full.
    fn tiles(&self, ids: &Meta, tokens: usize) -> usize {
        let pairs = ids.shape.elements();
        pairs / tokens + pairs.min(self.w.outer())
    }
}

/// Stand-ins for scratch buffers whose numbers are known when a kernel is complete: what a norm before gives, products of experts
/// that are to be summed, factors of rows.
const NORMED: Bind = Bind::Scratch(usize::MAX);
const PRODUCTS: Bind = Bind::Scratch(usize::MAX - 1);
const SCALES: Bind = Bind::Scratch(usize::MAX - 2);

/// `kernel` behind the norm that it reads.
fn prepend(norm: &Kernel, kernel: Kernel) -> Kernel {
    let at = kernel.scratch.len();
    let scratch = [kernel.scratch, norm.scratch.clone()].concat();
    let passes = [norm.passes.clone(), kernel.passes].concat();
    Kernel { passes, scratch, ..kernel }.rebind(|b| if b == NORMED { Bind::Scratch(at) } else { b })
}
