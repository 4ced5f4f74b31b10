//! Causal attention of a batch over the cache: y = softmax(mask(cap(scale · q·kᵀ) + alibi)) · v, grouped queries.
//!
//! One sequence: cell j holds position j, and token t sees cells 0 … pos[t], or the last `window` of them. A sink is one
//! more logit per head that takes part in the softmax and adds nothing. Softmax is taken online over blocks of cells.
//! Shader: shaders/attention*.wgsl. Source: arXiv 1706.03762, 2305.13245 (GQA), 2205.14135 (online softmax),
//! 2108.12409 (ALiBi), 2309.17453 (sinks), 2408.00118 (softcap).

use super::kv_store::{CacheTypes, cache_flags, scale_planes};
use super::{Bind, Caps, Case, Exact, Fill, Input, Kernel, Op, Pass, Pool};
use crate::base::{DType, Error, Meta, Result, View, ViewMut};

/// Sources: q `[tokens, heads, dim]`, keys `[cells, kv_heads, dim]`, values `[cells, kv_heads, value_dim]` (each of one of
/// [`CACHE_TYPES`](super::CACHE_TYPES)),
/// positions `[tokens]` `u32`, optional sinks `[heads]`. Result: `[tokens, heads, value_dim]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attention {
    /// Factor on q·k, usually 1/√dim.
    pub scale: f32,
    /// Cells a token sees, itself included; 0 for all.
    pub window: usize,
    /// cap · tanh(score / cap); 0 for none.
    pub softcap: f32,
    /// ALiBi's largest slope exponent; 0 for none.
    pub max_bias: f32,
}

impl Attention {
    /// ALiBi slope of each head: powers of 2^(−max_bias / n), n the power of two below; the rest interleaved.
    pub fn slopes(&self, heads: usize) -> Vec<f32> {
        if self.max_bias == 0.0 {
            return vec![0.0; heads];
        }
        let n = 1usize << heads.ilog2();
        let (m0, m1) = ((-self.max_bias / n as f32).exp2(), (-self.max_bias / 2.0 / n as f32).exp2());
        (0..heads).map(|h| if h < n { m0.powi(h as i32 + 1) } else { m1.powi(2 * (h - n) as i32 + 1) }).collect()
    }

    /// Cells that a batch sees when the cache is full: programs are made once, for whatever will be in it.
    pub fn cells(&self, src: &[Meta]) -> usize {
        let all = src[1].outer();
        if self.window == 0 { all } else { all.min(self.window + src[0].outer()) }
    }

    /// First cell that a token at `pos` sees.
    pub(super) fn first(&self, pos: usize) -> usize {
        if self.window == 0 { 0 } else { (pos + 1).saturating_sub(self.window) }
    }
}

/// Shape of the GPU kernel's tile: rows of queries by columns of cells, one thread each.
struct Tile {
    rows: usize,
    cols: usize,
}

/// Tiles that fit the device's workgroups, if any do, best first: as many rows as there are to fill, then as many columns.
fn tiles(src: &[Meta], group: usize, rows: usize, caps: &Caps) -> Vec<Tile> {
    let (dim, value_dim) = (src[0].shape[2], src[2].shape[2]);
    let useful = if rows <= group { group.next_power_of_two() } else { 16 };
    let shapes = [(16, 16), (8, 32), (8, 16), (4, 32), (4, 16), (8, 8), (4, 8), (2, 32), (2, 16), (1, 32), (1, 16), (1, 8)];
    let fits = |tile: &Tile| {
        let words = tile.rows * dim + tile.cols * (dim.max(value_dim) + 1) + tile.rows * tile.cols;
        tile.rows <= useful && 4 * words <= caps.max_shared as usize && tile.rows * tile.cols <= caps.max_invocations as usize
    };
    let all = shapes.map(|(rows, cols)| Tile { rows, cols }).into_iter().filter(fits);
    all.take(2).collect()
}

impl Attention {
    fn kernel(&self, src: &[Meta], tile: &Tile, splits: usize, caps: &Caps) -> Kernel {
        let (q, kv_heads, value_dim) = (&src[0], src[1].shape[1], src[2].shape[2]);
        let (tokens, heads) = (q.shape[0], q.shape[1]);
        let (rows, sinks) = (tokens * heads / kv_heads, src.len() > 4);
        let slopes = self.slopes(heads);
        let powers = 1usize << heads.ilog2();
        let rest = if powers < heads { slopes[powers] } else { 0.0 };
        let mut flags = Vec::new();
        flags.extend(cache_flags(src[1].dtype, src[2].dtype));
        flags.extend((splits > 1).then_some("SPLIT"));
        flags.extend((sinks && splits == 1).then_some("SINKS"));
        let target = if splits > 1 { Bind::Scratch(0) } else { Bind::Dst };
        let mut main = Pass {
            shader: "attention",
            flags,
            consts: vec![
                ("DIM", q.shape[2] as u32),
                ("DIM_V", value_dim as u32),
                ("GROUP", (heads / kv_heads) as u32),
                ("ROWS", tile.rows as u32),
                ("COLS", tile.cols as u32),
                ("WG", (tile.rows * tile.cols) as u32),
                ("OWN", value_dim.div_ceil(tile.cols) as u32),
            ],
            params: vec![
                ("rows", rows.into()),
                ("kv_heads", kv_heads.into()),
                ("q_stride", q.stride.into()),
                ("window", self.window.into()),
                ("splits", splits.into()),
                ("cells", src[1].outer().into()),
                ("scale", self.scale.into()),
                ("softcap", self.softcap.into()),
                ("slope_base", slopes[0].into()),
                ("slope_base_rest", rest.into()),
                ("slope_heads", powers.into()),
            ],
            binds: vec![
                ("q", Bind::Src(0)),
                ("keys", Bind::Src(1)),
                ("values", Bind::Src(2)),
                ("pos", Bind::Src(3)),
                ("y", target),
            ],
            workgroups: [rows.div_ceil(tile.rows) as u32, kv_heads as u32, splits as u32],
            ..Pass::default()
        };
        main.params.extend(scale_planes(&src[1], &src[2]));
        let of_tile = 2.0 * (tile.rows * kv_heads * (q.shape[2] + value_dim) * self.cells(src)) as f64;
        if splits == 1 {
            main.binds.extend(sinks.then_some(("sinks", Bind::Src(4))));
            let passes = main.pieces(tile.rows, of_tile, caps);
            return Kernel { variant: tile.name(), passes, scratch: vec![], rounding: 0.0 };
        }
        let mut merge = Pass {
            shader: "attention_reduce",
            flags: sinks.then_some("SINKS").into_iter().collect(),
            consts: vec![("DIM_V", value_dim as u32), ("WG", 64)],
            params: vec![("heads", heads.into()), ("splits", splits.into())],
            binds: vec![("partial", Bind::Scratch(0)), ("y", Bind::Dst)],
            workgroups: [heads as u32, tokens as u32, 1],
            ..Pass::default()
        };
        merge.binds.extend(sinks.then_some(("sinks", Bind::Src(4))));
        let scratch = vec![tokens * heads * splits * (value_dim + 2) * 4];
        let mut passes = main.pieces(tile.rows, of_tile, caps);
        passes.push(merge);
        Kernel { variant: "split", passes, scratch, rounding: 0.0 }
    }
}

/// Workgroups that keep a GPU busy.
const WORKGROUPS: usize = 128;
/// Queries that a workgroup takes at the most.
const MOST_ROWS: usize = 16;

impl Attention {
    /// Bytes of scratch that any number of tokens needs at the most, of as many heads and values as the result `y` has: splits and
    /// blocks of queries together are no more than the workgroups that keep a GPU busy, and each has a sum for each of its queries.
    pub fn most_scratch(y: &Meta) -> usize {
        let most = (WORKGROUPS * MOST_ROWS).min(32 * y.outer() * y.shape[1]);
        4 * (y.shape[2] + 2) * most
    }
}

impl Tile {
    fn name(&self) -> &'static str {
        match self.rows {
            16 => "tile16",
            8 => "tile8",
            4 => "tile4",
            2 => "tile2",
            _ => "tile1",
        }
    }
}

impl Op for Attention {
    const NAME: &str = "attention";

    fn infer(&self, src: &[Meta]) -> Result<Meta> {
        let (q, k, v) = (&src[0], &src[1], &src[2]);
        q.want(Self::NAME, DType::F32)?;
        src[3].want(Self::NAME, DType::U32)?;
        let three = [q, k, v].iter().all(|m| m.shape.dims().len() == 3);
        if !three || k.shape[2] != q.shape[2] || k.shape[1] != v.shape[1] || !q.shape[1].is_multiple_of(k.shape[1]) {
            return Err(Error::format(format!("attention: q {q:?}, keys {k:?} and values {v:?} do not fit")));
        }
        Ok(Meta::f32([q.shape[0], q.shape[1], v.shape[2]]))
    }

    fn cpu(&self, src: &[View], dst: ViewMut, pool: &dyn Pool) {
        super::attention_cpu::run(self, src, dst, pool);
    }

    fn gpu(&self, src: &[Meta], _dst: &Meta, caps: &Caps) -> Vec<Kernel> {
        let (rows, kv_heads) = (src[0].outer() * src[0].shape[1] / src[1].shape[1], src[1].shape[1]);
        let group = src[0].shape[1] / kv_heads;
        let tiles = tiles(src, group, rows, caps);
        let kernel = |tile: &Tile| {
            let blocks = rows.div_ceil(tile.rows) * kv_heads;
            // Cells are split until so many workgroups are busy, but no part is shorter than 64 cells.
            let splits = (WORKGROUPS / blocks).clamp(1, (src[1].outer() / 64).clamp(1, 32));
            self.kernel(src, tile, splits, caps)
        };
        let mut kernels: Vec<Kernel> = tiles.iter().map(kernel).collect();
        if kernels.is_empty() {
            return kernels;
        }
        // The other way of dealing with the cells is a variant as well, so that both are tested on every shape.
        let other = if kernels[0].scratch.is_empty() { 3 } else { 1 };
        kernels.push(self.kernel(src, &tiles[0], other, caps));
        kernels
    }

    fn oracle(&self, src: &[Exact]) -> Vec<f64> {
        let (q, k, v) = (&src[0].meta.shape, &src[1].meta.shape, &src[2].meta.shape);
        let (heads, group) = (q[1], q[1] / k[1]);
        let slopes = self.slopes(heads);
        let mut y = vec![0.0; q[0] * heads * v[2]];
        for (i, y) in y.chunks_mut(v[2]).enumerate() {
            let (t, h) = (i / heads, i % heads);
            let (kv, p) = (h / group, src[3].data[t] as usize);
            let score = |j: usize| {
                let key = &src[1].row(j)[kv * q[2]..][..q[2]];
                let query = &src[0].row(t)[h * q[2]..][..q[2]];
                let s = key.iter().zip(query).map(|(a, b)| a * b).sum::<f64>() * self.scale as f64;
                let cap = self.softcap as f64;
                let s = if cap == 0.0 { s } else { cap * (s / cap).tanh() };
                s - slopes[h] as f64 * (p - j) as f64
            };
            let scores: Vec<f64> = (self.first(p)..=p).map(score).collect();
            let sink = src.get(4).map(|s| s.data[h]);
            let max = scores.iter().copied().chain(sink).fold(f64::MIN, f64::max);
            let sum = scores.iter().copied().chain(sink).map(|s| (s - max).exp()).sum::<f64>();
            for (j, s) in (self.first(p)..=p).zip(&scores) {
                let value = &src[2].row(j)[kv * v[2]..][..v[2]];
                y.iter_mut().zip(value).for_each(|(y, x)| *y += (s - max).exp() / sum * x);
            }
        }
        y
    }

    fn cases() -> Vec<Case<Self>> {
        let plain = Attention { scale: 0.125, window: 0, softcap: 0.0, max_bias: 0.0 };
        let mixed = |op: Attention, kv: CacheTypes, sizes: [usize; 6], sinks: bool| {
            let [tokens, heads, kv_heads, dim, cells, start] = sizes;
            let [keys, values] = [kv.keys, kv.values].map(|t| Input::uniform(Meta::new(t, [cells, kv_heads, dim])));
            let q = Input { fill: Fill::Uniform { scale: 3.0, offset: 0.0 }, ..Input::f32([tokens, heads, dim]) };
            let pos = Input::filled(Meta::new(DType::U32, [tokens]), Fill::Count(start as u32));
            let mut src = vec![q.strided(heads * dim + 64, 32), keys, values, pos];
            src.extend(sinks.then(|| Input::f32([heads])));
            Case { op, src, nmse: 1e-7 }
        };
        let case = |op, kv: DType, sizes, sinks| mixed(op, kv.into(), sizes, sinks);
        let mut all = vec![
            case(plain, DType::F16, [1, 9, 3, 64, 256, 200], false),
            case(plain, DType::F32, [1, 4, 2, 64, 64, 0], false),
            case(plain, DType::F16, [40, 4, 2, 64, 256, 0], false),
            case(plain, DType::F16, [33, 4, 4, 80, 128, 70], false),
            case(plain, DType::F16, [1, 32, 8, 128, 1500, 1400], false),
            case(Attention { window: 32, ..plain }, DType::F16, [70, 4, 2, 64, 128, 5], false),
            case(Attention { window: 32, ..plain }, DType::F16, [1, 4, 2, 64, 300, 280], true),
            case(Attention { softcap: 5.0, ..plain }, DType::F32, [17, 4, 2, 64, 64, 3], false),
            case(Attention { max_bias: 8.0, ..plain }, DType::F32, [9, 12, 12, 32, 64, 20], false),
            case(plain, DType::F16, [5, 8, 2, 256, 64, 10], true),
            case(plain, DType::Q8_0, [1, 8, 2, 128, 300, 280], false),
            case(plain, DType::Q8_0, [20, 4, 2, 96, 64, 7], false),
            case(Attention { window: 32, ..plain }, DType::Q4_0, [1, 6, 2, 64, 200, 150], true),
            case(plain, DType::Q4_0, [35, 4, 1, 64, 64, 0], false),
        ];
        all.extend(CacheTypes::mixed().map(|kv| mixed(plain, kv, [3, 4, 2, 64, 128, 90], false)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_of_tokens_needs_more_scratch_than_is_foretold() {
        let op = Attention { scale: 0.125, window: 0, softcap: 0.0, max_bias: 0.0 };
        for (heads, kv_heads, dim) in [(9, 3, 64), (32, 8, 128), (4, 1, 128), (64, 8, 64), (12, 12, 80), (71, 1, 64)] {
            let cache = Meta::new(DType::F16, [4096, kv_heads, dim]);
            let src = |tokens| [Meta::f32([tokens, heads, dim]), cache, cache, Meta::new(DType::U32, [tokens])];
            let most = (1..600).map(|tokens| {
                let kernel = &op.gpu(&src(tokens), &Meta::f32([tokens, heads, dim]), &Caps::BASELINE)[0];
                kernel.scratch.iter().sum::<usize>()
            });
            let most = most.max().unwrap_or(0);
            let foretold = Attention::most_scratch(&Meta::f32([600, heads, dim]));
            assert!(most <= foretold && 4 * most > foretold, "{heads} heads: {most} of {foretold}");
        }
    }
}
