//! How the matrix products `matmul` and `matmul_id` run on a GPU: their shaders' parameters, variants and shards.
//!
//! Activations are read four at a time where rows begin at multiples of four; whether the tensor at hand does too, only
//! the runner knows, so the variant that reads one at a time follows in the list.

use super::{Bind, Caps, Kernel, Param, Pass, line, weight_shards};
use crate::base::Meta;
use crate::quant;
use std::ops::Range;

/// Threads of a workgroup of `matmul_vec`.
const VEC_THREADS: u32 = 64;
/// Rows of a tile of `matmul_tile`.
const TILE_ROWS: usize = 64;
/// Most tokens for `matmul_vec`: beyond, weights are better decoded into workgroup memory.
pub(super) const VEC_TOKENS: usize = 8;

/// A product of weights `w` with activations `x`, plain or with experts chosen by source 2.
pub(super) struct Product<'a> {
    pub w: &'a Meta,
    pub x: &'a Meta,
    /// Expert ids `[tokens, used]`.
    pub ids: Option<&'a Meta>,
    /// The source that is the bias.
    pub bias: Option<usize>,
    pub caps: &'a Caps,
}

/// The ways of reading activations and of adding up, best first.
struct Variant {
    name: &'static str,
    flags: &'static [&'static str],
}

const VEC: [Variant; 4] = [
    Variant { name: "vec_subgroups_x4", flags: &["SUBGROUPS", "X4"] },
    Variant { name: "vec_subgroups", flags: &["SUBGROUPS"] },
    Variant { name: "vec_shared_x4", flags: &["X4"] },
    Variant { name: "vec_shared", flags: &[] },
];
const TILE: [Variant; 2] = [Variant { name: "tile_x4", flags: &["X4"] }, Variant { name: "tile", flags: &[] }];

impl Product<'_> {
    /// Rows of one matrix of weights: of all, or of one expert.
    fn rows(&self) -> usize {
        self.w.shape[self.w.shape.dims().len() - 2]
    }

    fn k(&self) -> usize {
        self.w.shape.row()
    }

    fn possible(&self, variant: &Variant) -> bool {
        let x4 = self.k().is_multiple_of(8) && self.x.stride.is_multiple_of(4);
        (x4 || !variant.flags.contains(&"X4"))
            && (self.caps.subgroups.is_some() || !variant.flags.contains(&"SUBGROUPS"))
    }

    /// Kernels that read each weight once for a few tokens, or for one (token, used) pair.
    pub fn vec(&self) -> Vec<Kernel> {
        let possible = VEC.iter().filter(|v| self.possible(v));
        possible
            .map(|v| Kernel { variant: v.name, passes: self.passes(|s| self.vec_pass(v, s)), scratch: vec![] })
            .collect()
    }

    /// Kernels for many tokens.
    pub fn tile(&self) -> Vec<Kernel> {
        let possible = TILE.iter().filter(|v| self.possible(v));
        possible
            .map(|v| {
                let mut passes = self.passes(|shard| self.tile_pass(v, shard));
                let mut scratch = Vec::new();
                if let Some(ids) = self.ids {
                    passes.insert(0, self.sort_pass(ids));
                    scratch = vec![16 * self.tiles(ids), 4 * ids.shape.elements()];
                }
                Kernel { variant: v.name, passes, scratch }
            })
            .collect()
    }

    fn passes(&self, pass: impl Fn((usize, Range<usize>)) -> Pass) -> Vec<Pass> {
        weight_shards(self.w, self.caps).into_iter().enumerate().map(pass).collect()
    }

    /// What both shaders share, for one shard of the weights' rows.
    fn pass(&self, variant: &Variant, (part, shard): (usize, Range<usize>)) -> Pass {
        let (rows, k) = (self.rows(), self.k());
        let planes = quant::gpu_planes(self.w.dtype, shard.len(), k).planes;
        let mut pass = Pass {
            quant: Some(self.w.dtype),
            flags: variant.flags.to_vec(),
            params: vec![
                ("planes", planes.into()),
                ("k", k.into()),
                ("row_w8", (quant::gpu_padded(k) / 8).into()),
                ("n", rows.into()),
                ("x_stride", self.x.stride.into()),
            ],
            binds: vec![
                ("wq", Bind::Shard { src: 0, part }),
                ("wd", Bind::Shard { src: 0, part }),
                ("x", Bind::Src(1)),
                ("y", Bind::Dst),
            ],
            ..Pass::default()
        };
        if let Some(bias) = self.bias {
            pass.flags.push("BIAS");
            pass.binds.push(("bias", Bind::Src(bias)));
        }
        match self.ids {
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

    fn vec_pass(&self, variant: &Variant, shard: (usize, Range<usize>)) -> Pass {
        let rows = if self.ids.is_some() { self.rows() } else { shard.1.len() };
        // More rows reuse the activations more; with few rows in all, the device is better filled.
        let per_group = if rows >= 1024 { 4 } else { 2 };
        let groups = rows.div_ceil(per_group);
        let mut pass = Pass { shader: "matmul_vec", workgroups: line(groups, self.caps), ..self.pass(variant, shard) };
        let columns = if self.ids.is_some() { 1 } else { self.x.outer() };
        pass.consts = vec![("WG", VEC_THREADS), ("ROWS", per_group as u32), ("COLS", columns as u32)];
        if let Some(ids) = self.ids {
            let pairs = ids.shape.elements();
            let [y, z, _] = line(pairs, self.caps);
            pass.workgroups = [groups as u32, y, z];
            pass.params.extend([("pairs", pairs.into()), ("ids_stride", ids.stride.into())]);
            pass.binds.push(("ids", Bind::Src(2)));
        }
        pass
    }

    fn tile_pass(&self, variant: &Variant, shard: (usize, Range<usize>)) -> Pass {
        let rows = if self.ids.is_some() { self.rows() } else { shard.1.len() };
        let mut pass = Pass { shader: "matmul_tile", ..self.pass(variant, shard) };
        let tokens = self.tile_tokens();
        pass.consts = vec![("TOKENS", tokens as u32)];
        let columns = match self.ids {
            None => {
                pass.params.push(("tokens", self.x.outer().into()));
                self.x.outer().div_ceil(tokens)
            }
            Some(ids) => {
                pass.binds.extend([("tiles", Bind::Scratch(0)), ("order", Bind::Scratch(1))]);
                self.tiles(ids)
            }
        };
        pass.workgroups = [rows.div_ceil(TILE_ROWS) as u32, columns as u32, 1];
        pass
    }

    fn sort_pass(&self, ids: &Meta) -> Pass {
        Pass {
            shader: "matmul_id_sort",
            consts: vec![("EXPERTS", self.w.outer() as u32), ("TOKENS", self.tile_tokens() as u32)],
            params: vec![
                ("pairs", ids.shape.elements().into()),
                ("used", ids.shape[1].into()),
                ("tiles", self.tiles(ids).into()),
                ("ids_stride", ids.stride.into()),
            ],
            binds: vec![("ids", Bind::Src(2)), ("tiles", Bind::Scratch(0)), ("order", Bind::Scratch(1))],
            workgroups: [1, 1, 1],
            ..Pass::default()
        }
    }

    /// Tokens of a tile: few where few share their weights.
    fn tile_tokens(&self) -> usize {
        if self.ids.is_some() || self.x.outer() <= 32 { 32 } else { 64 }
    }

    /// Most tiles that the pairs can need: each expert may have one that is not full.
    fn tiles(&self, ids: &Meta) -> usize {
        let pairs = ids.shape.elements();
        pairs / self.tile_tokens() + pairs.min(self.w.outer())
    }
}
