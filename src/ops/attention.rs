//! Causal attention of a batch over the cache: y = softmax(mask(cap(scale · q·kᵀ) + alibi)) · v, grouped queries.
//!
//! Token t sees the cells of the positions 0 … pos[t] of its own sequence, or the last `window` of them. A sink is one more logit
//! per head that takes part in the softmax and adds nothing. Softmax is taken online over blocks of cells.
//! Shader: shaders/attention*.wgsl. Source: arXiv 1706.03762, 2305.13245 (GQA), 2205.14135 (online softmax),
//! 2108.12409 (ALiBi), 2309.17453 (sinks), 2408.00118 (softcap).

use super::kv_store::check_places;
use super::places::{PAGE_CELLS, RowPlaces};
use super::work::row_bytes;
use super::{CacheTypes, Caps, Case, Exact, Fill, Input, Kernel, Op, Threads, Work};
use crate::base::{DType, Error, Meta, Result, Role, View, ViewMut};
use std::ops::Range;

/// Sources: q `[tokens, heads, dim]`, keys `[cells, kv_heads, dim]`, values `[cells, kv_heads, value_dim]` (each of one of
/// [`CACHE_TYPES`](super::CACHE_TYPES)), places (see `places.rs`), optional sinks `[heads]`. Result: `[tokens, heads, value_dim]`,
/// zeros for rows that are none.
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
    /// What the rows are: those of a prompt are computed together as far as they follow each other, answers one by one.
    pub role: Role,
    /// The group of layers, whose tables are used.
    pub group: usize,
    /// Positions of a sequence at the most.
    pub context: usize,
}

impl Attention {
    /// Over all cells before, in the only group, with nothing around it.
    pub const fn plain(scale: f32, role: Role, context: usize) -> Attention {
        Attention { scale, window: 0, softcap: 0.0, max_bias: 0.0, role, group: 0, context }
    }

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
        let more = if self.role == Role::Answer { 1 } else { src[0].outer() };
        if self.window == 0 { self.context } else { self.context.min(self.window + more) }
    }

    /// First cell that a token at `pos` sees.
    pub(super) fn first(&self, pos: usize) -> usize {
        if self.window == 0 { 0 } else { (pos + 1).saturating_sub(self.window) }
    }
}

impl Op for Attention {
    const NAME: &str = "attention";

    fn infer(&self, src: &[Meta]) -> Result<Meta> {
        let (q, k, v) = (&src[0], &src[1], &src[2]);
        q.want(Self::NAME, DType::F32)?;
        check_places(Self::NAME, &src[3], q.outer(), self.group)?;
        let three = [q, k, v].iter().all(|m| m.shape.dims().len() == 3);
        if !three || k.shape[2] != q.shape[2] || k.shape[1] != v.shape[1] || !q.shape[1].is_multiple_of(k.shape[1]) {
            return Err(Error::format(format!("attention: q {q:?}, keys {k:?} and values {v:?} do not fit")));
        }
        Ok(Meta::f32([q.shape[0], q.shape[1], v.shape[2]]))
    }

    fn caches(&self) -> Range<usize> {
        1..3
    }

    fn work(&self, src: &[Meta], dst: &Meta, depth: usize) -> Work {
        let (tokens, cells) = (src[0].outer(), self.context);
        let most = if self.window > 0 { cells.min(self.window) } else { cells };
        let depth = depth.min(cells);
        // The first token sees a cell more than there were, the next two more; what one of them sees is read once for all. Answers see
        // cells of their own.
        let (seen, read) = match self.role {
            Role::Prompt | Role::Piece => {
                let seen: usize = (0..tokens).map(|i| (depth + i + 1).min(most)).sum();
                (seen, (if self.window > 0 { depth.min(self.window) } else { depth } + tokens).min(cells))
            }
            Role::Answer => (tokens * (depth + 1).min(most), tokens * (depth + 1).min(most)),
        };
        let channels = (src[0].shape.elements() + dst.shape.elements()) as f64;
        let operations = 2.0 * channels * seen as f64 / tokens as f64;
        let mut work = Work::of_products(src, dst, src[1].dtype, operations);
        self.caches().for_each(|i| work.sources[i] = row_bytes(&src[i]) * read as f64);
        work
    }

    fn most_scratch(&self, src: &[Meta]) -> Vec<usize> {
        self.scratch_of_any_batch(src)
    }

    fn cpu(&self, src: &[View], dst: ViewMut, pool: &dyn Threads) {
        super::attention_cpu::run(self, src, dst, pool);
    }

    fn gpu(&self, src: &[Meta], _dst: &Meta, caps: &Caps) -> Vec<Kernel> {
        self.kernels(src, caps)
    }

    fn oracle(&self, src: &[Exact]) -> Vec<f64> {
        let (q, k, v) = (&src[0].meta.shape, &src[1].meta.shape, &src[2].meta.shape);
        let (heads, group) = (q[1], q[1] / k[1]);
        let words = src[3].words();
        let places = RowPlaces::new(&words, q[0], self.group);
        let slopes = self.slopes(heads);
        let mut y = vec![0.0; q[0] * heads * v[2]];
        for (i, y) in y.chunks_mut(v[2]).enumerate() {
            let (t, h) = (i / heads, i % heads);
            let kv = h / group;
            let Some(p) = places.position(t) else { continue };
            let table = places.table(t);
            let cell = |j: usize| table[j / PAGE_CELLS] as usize * PAGE_CELLS + j % PAGE_CELLS;
            let score = |j: usize| {
                let key = &src[1].row(cell(j))[kv * q[2]..][..q[2]];
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
                let value = &src[2].row(cell(j))[kv * v[2]..][..v[2]];
                y.iter_mut().zip(value).for_each(|(y, x)| *y += (s - max).exp() / sum * x);
            }
        }
        y
    }

    fn cases() -> Vec<Case<Self>> {
        let plain = Attention::plain(0.125, Role::Prompt, 0);
        let of = |op: Attention, kv: CacheTypes, sizes: [usize; 6], value_dim: usize, sinks: bool| {
            let [tokens, heads, kv_heads, dim, cells, start] = sizes;
            // A page more than the sequence needs.
            let context = cells.next_multiple_of(PAGE_CELLS);
            let role = if tokens == 1 { Role::Answer } else { Role::Prompt };
            rows_of(Attention { role, context, ..op }, kv, [tokens, 1, heads, kv_heads, dim, start], value_dim, sinks)
        };
        let case = |op, kv: DType, sizes: [usize; 6], sinks| of(op, kv.into(), sizes, sizes[3], sinks);
        let window = |window| Attention { window, ..plain };
        let mut all = vec![
            case(plain, DType::F16, [1, 9, 3, 64, 256, 200], false),
            case(plain, DType::F32, [1, 4, 2, 192, 64, 0], false),
            case(plain, DType::F16, [40, 4, 2, 64, 256, 0], false),
            case(plain, DType::F16, [33, 4, 4, 80, 128, 70], false),
            case(plain, DType::F16, [1, 32, 8, 128, 1500, 1400], false),
            case(window(32), DType::F16, [70, 4, 2, 64, 128, 5], false),
            case(window(32), DType::F16, [1, 4, 2, 112, 300, 280], true),
            case(Attention { softcap: 5.0, ..plain }, DType::F32, [17, 4, 2, 64, 64, 3], false),
            case(Attention { max_bias: 8.0, ..plain }, DType::F32, [9, 12, 12, 32, 64, 20], false),
            case(plain, DType::F16, [5, 8, 2, 256, 64, 10], true),
            case(plain, DType::Q8_0, [1, 8, 2, 128, 300, 280], false),
            case(plain, DType::Q8_0, [20, 4, 2, 96, 64, 7], false),
            case(window(32), DType::Q4_0, [1, 6, 2, 64, 200, 150], true),
            case(plain, DType::Q4_0, [35, 4, 1, 256, 64, 0], false),
            // Too many workgroups to split cells; one row of a kv head, and two; one that sees a part of the splits.
            case(plain, DType::F16, [64, 32, 32, 32, 100, 30], true),
            case(plain, DType::F16, [1, 3, 3, 128, 700, 600], true),
            case(window(300), DType::F16, [2, 2, 2, 64, 1500, 900], true),
            // Keys and values of different widths, wide heads, and such as are no multiples of eight channels.
            of(plain, DType::F16.into(), [1, 16, 1, 576, 90, 80], 512, false),
            case(plain, DType::F16, [2, 2, 1, 1024, 70, 60], false),
            of(plain, DType::F16.into(), [5, 4, 2, 20, 100, 70], 12, false),
            of(plain, DType::F32.into(), [9, 2, 1, 5, 300, 260], 3, true),
            of(plain, DType::F16.into(), [1, 2, 1, 8, 300, 260], 300, false),
        ];
        let types = [DType::F16, DType::Q8_0, DType::Q4_0, DType::F32, DType::F16];
        // Several sequences: answers, whose number leaves threads without one or gives each several; pieces of prompts; and no row.
        let several = |op: Attention, role, sizes: [usize; 6]| {
            let context = (sizes[5] + sizes[0]).next_multiple_of(PAGE_CELLS);
            rows_of(Attention { role, context, ..op }, DType::F16.into(), sizes, sizes[4], false)
        };
        all.push(several(plain, Role::Answer, [4, 4, 9, 3, 64, 1200]));
        all.push(several(plain, Role::Answer, [33, 33, 4, 2, 64, 300]));
        all.push(several(window(40), Role::Answer, [7, 7, 6, 2, 64, 200]));
        all.push(several(plain, Role::Prompt, [64, 4, 4, 2, 64, 600]));
        all.push(several(plain, Role::Piece, [64, 4, 4, 2, 64, 2100]));
        all.push(several(window(50), Role::Piece, [48, 3, 8, 1, 80, 90]));
        all.push(several(window(700), Role::Piece, [32, 2, 6, 2, 64, 1500]));
        let mixed = types.windows(2).map(|kv| CacheTypes { keys: kv[0], values: kv[1] });
        all.extend(mixed.map(|kv| of(plain, kv, [3, 4, 2, 64, 128, 90], 64, false)));
        all
    }
}

/// A case of `[tokens, sequences, heads, kv_heads, dim, start]`.
fn rows_of(op: Attention, kv: CacheTypes, sizes: [usize; 6], value_dim: usize, sinks: bool) -> Case<Attention> {
    let [tokens, sequences, heads, kv_heads, dim, start] = sizes;
    let cells = sequences * op.context + PAGE_CELLS;
    let cache = |dtype, dim| Input::uniform(Meta::new(dtype, [cells, kv_heads, dim]));
    let (keys, values) = (cache(kv.keys, dim), cache(kv.values, value_dim));
    let q = Input { fill: Fill::Uniform { scale: 3.0, offset: 0.0 }, ..Input::f32([tokens, heads, dim]) };
    let mut src = vec![q.strided(heads * dim + 64, 32), keys, values, Input::places(tokens, sequences, start, cells)];
    src.extend(sinks.then(|| Input::f32([heads])));
    Case { op, src, nmse: 1e-7 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_of_tokens_needs_more_scratch_than_is_predicted() {
        let plain = |role| Attention::plain(0.125, role, 4096);
        for (heads, kv_heads, dim) in [(9, 3, 64), (32, 8, 128), (4, 1, 128), (64, 8, 64), (12, 12, 80), (71, 1, 64)] {
            let cache = Meta::new(DType::F16, [4096, kv_heads, dim]);
            let src =
                |tokens| [Meta::f32([tokens, heads, dim]), cache, cache, Meta::new(DType::U32, [2 * tokens + 64])];
            let most = (1..600).map(|tokens| {
                let op = plain(if tokens == 1 { Role::Answer } else { Role::Prompt });
                let kernel = &op.gpu(&src(tokens), &Meta::f32([tokens, heads, dim]), &Caps::BASELINE)[0];
                kernel.scratch.iter().sum::<usize>()
            });
            let most = most.max().unwrap_or(0);
            let predicted: usize = plain(Role::Prompt).most_scratch(&src(600)).iter().sum();
            assert!(most <= predicted && 4 * most > predicted, "{heads} heads: {most} of {predicted}");
        }
    }
}
