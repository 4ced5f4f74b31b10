//! Queries, keys and values made ready for attention, in one op: q' = rope(norm(q)), keys[cell] = rope(norm(k)), values[cell] = v.
//! The norms (RMS over each head or over all heads' channels, or layer norms of each head) may be left out, or follow the rotation.
//!
//! `graph::fuse` makes it from `rms_norm`, `rope` and `kv_store`, and it computes what they do.
//! Shader: shaders/rope_store.wgsl. Source: arXiv 2104.09864 (RoPE), 2302.05442 (QK norm).

use super::kv_store::{CacheTypes, cache_flags, check_cache, check_places, rounding, scale_planes, write_cells};
use super::places::{PAGE_CELLS, RowPlaces, positions};
use super::rope::Angles;
use super::work::row_bytes;
use super::{
    Bind, Caps, Case, Exact, Fill, Input, Kernel, KvStore, LayerNorm, Op, Pairs, Param, Pass, RmsNorm, Rope, Stack,
    Threads, Work, share_out_alike,
};
use crate::base::{DType, Error, Meta, Result, View, ViewMut};
use std::cell::RefCell;
use std::ops::Range;

/// Sources: qk `[tokens, heads + kv_heads, dim]`, v `[tokens, kv_heads, value_dim]`, places (see `places.rs`), the rotary table
/// `[pairs]` `u32`, keys `[cells, kv_heads, dim]` and values `[cells, kv_heads, value_dim]` (updated in place); with a norm, its
/// weights for q and for k, each `[dim]` or `[all heads' channels]`. Result: q' `[tokens, heads, dim]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeStore {
    /// How channels are turned.
    pub rope: Rope,
    /// How they are normalised.
    pub norm: Option<HeadNorm>,
    /// The group of layers, whose tables are used.
    pub group: usize,
}

/// The norm of queries and keys.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadNorm {
    /// Added to the mean square.
    pub eps: f32,
    /// Over all heads' channels together, instead of each head's.
    pub wide: bool,
    /// After the rotation.
    pub after: bool,
    /// Layer norm, of each head, instead of RMS.
    pub layer: bool,
}

thread_local! {
    // Keys of a batch, kept so that a decoded token allocates nothing once warm.
    static TURNED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl RopeStore {
    /// Shapes of q and k that a norm of theirs sees, and the shape of its weight.
    fn shapes(&self, wide: bool, heads: usize, dim: usize, weight: usize) -> ([usize; 2], [usize; 2]) {
        if wide { ([1, heads * dim], [1, heads * dim]) } else { ([heads, dim], [weight / dim, dim]) }
    }

    /// One token's q or k, in place: its heads of `dim` channels are normalised and turned, as the plain ops' code does it.
    fn ready(&self, angles: &Angles, weight: Option<&View>, dim: usize, y: &mut [f32]) {
        let (Some(norm), Some(weight)) = (self.norm, weight.map(|w| w.f32())) else {
            return self.rope.rotate(angles, dim, y);
        };
        if norm.after {
            self.rope.rotate(angles, dim, y);
        }
        let row = if norm.wide { y.len() } else { dim };
        for (y, weight) in y.chunks_mut(row).zip(weight.chunks(row).cycle()) {
            match norm.layer {
                true => LayerNorm { eps: norm.eps }.row(y, Some(weight), None),
                false => RmsNorm { eps: norm.eps }.row(y, Some(weight)),
            }
        }
        if !norm.after {
            self.rope.rotate(angles, dim, y);
        }
    }
}

/// `meta` `[tokens, heads, dim]` with `count` heads.
fn heads(meta: Meta, count: usize) -> Meta {
    Meta { shape: [meta.shape[0], count, meta.shape[2]].into(), ..meta }
}

impl Op for RopeStore {
    const NAME: &str = "rope_store";

    fn updates(&self) -> Range<usize> {
        4..6
    }

    fn infer(&self, src: &[Meta]) -> Result<Meta> {
        let (qk, v, keys, values) = (&src[0], &src[1], &src[4], &src[5]);
        let wrong = || Error::format(format!("rope_store: {self:?} of {src:?}"));
        let norms = if self.norm.is_some() { 2 } else { 0 };
        let wide_layer = self.norm.is_some_and(|n| n.wide && n.layer);
        if wide_layer || src.len() != 6 + norms || qk.shape.dims().len() != 3 || qk.shape[1] <= keys.shape[1] {
            return Err(wrong());
        }
        let (kv_heads, dim) = (keys.shape[1], qk.shape[2]);
        let count = qk.shape[1] - kv_heads;
        check_cache(Self::NAME, keys, &heads(*qk, kv_heads))?;
        check_cache(Self::NAME, values, v)?;
        for (weight, heads) in src[6..].iter().zip([count, kv_heads]) {
            let n = weight.shape.elements();
            let per_head = !self.norm.is_some_and(|n| n.wide) && n == dim;
            if weight.dtype != DType::F32 || weight.shape.dims().len() != 1 || !(per_head || n == heads * dim) {
                return Err(wrong());
            }
        }
        let alike = src.len() == 6 || (src[6].shape[0] == dim) == (src[7].shape[0] == dim);
        if !alike || v.outer() != qk.outer() {
            return Err(wrong());
        }
        check_places(Self::NAME, &src[2], qk.outer(), self.group)?;
        self.rope.infer(&[heads(*qk, count), Meta::new(DType::U32, [qk.outer()]), src[3]])
    }

    fn caches(&self) -> Range<usize> {
        4..6
    }

    fn work(&self, src: &[Meta], dst: &Meta, _depth: usize) -> Work {
        let written = |cache: &Meta| row_bytes(cache) * src[0].outer() as f64;
        let mut work = Work::of_values(src, dst);
        self.caches().for_each(|i| work.sources[i] = written(&src[i]));
        work
    }

    fn cpu(&self, _src: &[View], _dst: ViewMut, _pool: &dyn Threads) {
        unreachable!("it updates the cache too");
    }

    fn cpu_updating(&self, src: &[View], mut dst: ViewMut, more: &mut [ViewMut], pool: &dyn Threads) {
        let qk = &src[0];
        let (dim, rows, turns) = (qk.meta.shape[2], qk.meta.outer(), src[3].u32());
        let places = RowPlaces::new(src[2].u32(), rows, self.group);
        let positions = positions(&src[2], rows);
        let q_row = dst.meta.inner();
        let k_row = qk.meta.inner() - q_row;
        let [keys, values] = more else { unreachable!("keys and values are updated") };
        TURNED.with_borrow_mut(|turned| {
            turned.resize(rows * k_row, 0.0);
            let of_q = dst.f32().chunks_mut(q_row);
            let parts = of_q.zip(turned.chunks_mut(k_row)).enumerate();
            share_out_alike(pool, parts, |(t, (q, k))| {
                let (of_q, of_k) = qk.row(t).split_at(q_row);
                q.copy_from_slice(of_q);
                k.copy_from_slice(of_k);
                self.rope.with_angles(positions.u32()[t], turns, |angles| {
                    self.ready(angles, src.get(6), dim, q);
                    self.ready(angles, src.get(7), dim, k);
                });
            });
            let row = |t: usize| [&turned[t * k_row..(t + 1) * k_row], src[1].row(t)];
            let caches = [keys, values].map(|cache| ViewMut { meta: cache.meta, data: &mut *cache.data });
            write_cells(caches, (&places, rows), row, pool);
        });
    }

    fn gpu(&self, src: &[Meta], dst: &Meta, caps: &Caps) -> Vec<Kernel> {
        let (qk, keys, values) = (&src[0], &src[4], &src[5]);
        let (kv_heads, count, dim) = (keys.shape[1], dst.shape[1], dst.shape[2]);
        let mut params: Vec<(&str, Param)> = vec![
            ("cells", keys.outer().into()),
            ("begins", (dst.outer() * (1 + self.group)).into()),
            ("pairs", src[3].outer().into()),
            ("qk_stride", qk.stride.into()),
            ("v_stride", src[1].stride.into()),
            ("mscale", self.rope.mscale.into()),
            ("eps", self.norm.map_or(0.0, |n| n.eps).into()),
        ];
        params.extend(scale_planes(keys, values));
        let mut pass = Pass {
            shader: Self::NAME,
            flags: cache_flags(keys.dtype, values.dtype),
            consts: vec![
                ("WG", 64),
                ("DIM_K", dim as u32),
                ("DIM_V", values.shape[2] as u32),
                ("HEADS", count as u32),
                ("KV_HEADS", kv_heads as u32),
            ],
            params,
            binds: vec![
                ("qk", Bind::Src(0)),
                ("v", Bind::Src(1)),
                ("places", Bind::Src(2)),
                ("turns", Bind::Src(3)),
                ("keys", Bind::Src(4)),
                ("values", Bind::Src(5)),
                ("y", Bind::Dst),
            ],
            workgroups: [(count + 2 * kv_heads) as u32, dst.outer() as u32, 1],
            ..Pass::default()
        };
        pass.flags.extend((self.rope.pairs == Pairs::Interleaved).then_some("ADJACENT"));
        if let Some(norm) = self.norm {
            pass.flags.extend(["NORMS", if norm.after { "NORM_AFTER" } else { "NORM" }]);
            pass.flags.extend(norm.wide.then_some("WIDE"));
            pass.flags.extend(norm.layer.then_some("LAYER"));
            pass.flags.extend((src[6].shape[0] != dim).then_some("NORM_HEADS"));
            pass.binds.push(("norms", Bind::Stack(Stack { first: 6, count: 2, interleaved: false })));
        }
        if self.norm.is_none() { vec![Kernel::single("plain", pass)] } else { Kernel::reductions(pass, caps) }
    }

    fn oracle(&self, src: &[Exact]) -> Vec<f64> {
        let (tokens, all, dim) = (src[0].meta.shape[0], src[0].meta.shape[1], src[0].meta.shape[2]);
        let kv_heads = src[4].meta.shape[1];
        let turned = |first: usize, count: usize, weight: Option<&Exact>| {
            let rows = (0..tokens).flat_map(|t| src[0].data[(t * all + first) * dim..][..count * dim].to_vec());
            let x = Exact { meta: Meta::f32([tokens, count, dim]), data: rows.collect() };
            let positions = Exact { meta: Meta::new(DType::U32, [tokens]), data: src[2].data[..tokens].to_vec() };
            let rope =
                |x: Exact| Exact { data: self.rope.oracle(&[x.clone(), positions.clone(), src[3].clone()]), ..x };
            let norm = |x: Exact| match (self.norm, weight) {
                (Some(norm), Some(w)) => {
                    let (rows, weights) = self.shapes(norm.wide, count, dim, w.data.len());
                    let w = Exact { meta: Meta::f32(weights), ..w.clone() };
                    let meta = Meta::f32([tokens, rows[0], rows[1]]);
                    let of = Exact { meta, data: x.data.clone() };
                    let data = match norm.layer {
                        true => LayerNorm { eps: norm.eps }.oracle(&[of, w]),
                        false => RmsNorm { eps: norm.eps }.oracle(&[of, w]),
                    };
                    Exact { data, ..x }
                }
                _ => x,
            };
            if self.norm.is_some_and(|n| n.after) { norm(rope(x)) } else { rope(norm(x)) }
        };
        let (q, k) = (turned(0, all - kv_heads, src.get(6)), turned(all - kv_heads, kv_heads, src.get(7)));
        let caches =
            KvStore { group: self.group }.oracle(&[src[4].clone(), src[5].clone(), k, src[1].clone(), src[2].clone()]);
        [q.data, caches].concat()
    }

    fn cases() -> Vec<Case<Self>> {
        let mixed = |pairs, norm: Option<HeadNorm>, kv: CacheTypes, sizes: [usize; 6], start: usize, weights: usize| {
            let [tokens, count, kv_heads, dim, value_dim, turned] = sizes;
            let cells = (start + tokens).next_multiple_of(PAGE_CELLS) + PAGE_CELLS;
            let width = (count + kv_heads) * dim + 32;
            let mut src = vec![
                Input::f32([tokens, count + kv_heads, dim]).strided(width, 32),
                Input::f32([tokens, kv_heads, value_dim]),
                Input::places(tokens, 1, start, cells),
                Input::filled(Meta::new(DType::U32, [turned / 2]), Fill::Bits),
                Input::uniform(Meta::new(kv.keys, [cells, kv_heads, dim])),
                Input::uniform(Meta::new(kv.values, [cells, kv_heads, value_dim])),
            ];
            if norm.is_some() {
                src.extend([count, kv_heads].map(|h| Input::f32([if weights == 1 { dim } else { h * dim }])));
            }
            let op = RopeStore { rope: Rope { pairs, mscale: if norm.is_some() { 1.0 } else { 1.1 } }, norm, group: 0 };
            // Sums of the norm's squares, and turns, are a few roundings; the cache's type is what counts.
            Case { op, src, nmse: rounding(kv.keys).max(rounding(kv.values)).max(1e-9) }
        };
        let case = |pairs, norm, kv: DType, sizes, start, weights| mixed(pairs, norm, kv.into(), sizes, start, weights);
        let norm = |wide, after| Some(HeadNorm { eps: 1e-5, wide, after, layer: false });
        let layer = Some(HeadNorm { eps: 1e-5, wide: false, after: false, layer: true });
        let (interleaved, neox) = (Pairs::Interleaved, Pairs::NeoX);
        let mut all = vec![
            case(interleaved, None, DType::F16, [3, 4, 2, 64, 64, 64], 5, 1),
            case(neox, None, DType::F32, [1, 9, 3, 80, 64, 40], 70, 1),
            case(neox, norm(false, false), DType::F16, [1, 4, 2, 128, 128, 128], 9, 1),
            case(neox, norm(false, false), DType::F32, [33, 4, 4, 64, 64, 64], 0, 2),
            case(neox, norm(true, false), DType::F16, [2, 4, 2, 64, 64, 64], 1, 2),
            case(interleaved, norm(false, true), DType::F32, [4, 6, 2, 32, 32, 32], 3, 1),
            case(neox, layer, DType::F16, [3, 4, 2, 64, 64, 32], 3, 2),
            case(neox, norm(false, false), DType::Q8_0, [1, 4, 2, 64, 96, 64], 6, 1),
            case(interleaved, None, DType::Q4_0, [5, 2, 1, 96, 64, 96], 0, 1),
        ];
        all.extend(CacheTypes::mixed().map(|kv| mixed(neox, None, kv, [2, 2, 1, 64, 32, 64], 4, 1)));
        all
    }
}
