//! The GPU kernels of [`Attention`]: how workgroups are cut, by the shape of the heads, the cache's types and the device's limits.
//! Shaders: shaders/attention*.wgsl, shaders/kv_read.wgsl.

use super::attention::Attention;
use super::kv_store::{cache_flags, scale_planes};
use super::places::PAGE_CELLS;
use super::{Bind, Caps, Kernel, Pass};
use crate::base::{DType, Meta, Role};
use std::ops::Range;

/// Workgroups that keep a GPU busy.
const WORKGROUPS: usize = 128;
/// The same of several tokens, where cells are split: no more, for each needs room for its sums.
const MOST_WORKGROUPS: usize = 1024;
/// The same of pieces of prompts.
const PIECE_SPAN: usize = 1024;
/// Values that the sums of answers' splits may have together.
const MOST_SUMS: usize = 8 << 20;
/// Cells of a split: a few steps of a workgroup. So parts of long caches that nothing was written to yet cost next to nothing.
const SPAN: usize = 256;
/// Cells that lie in a row in the cache.
const RUN: usize = PAGE_CELLS;
/// Loads of values that are under way together: AHEAD of shaders/attention.wgsl.
const AHEAD: usize = 4;
/// Rows that a workgroup takes at the most.
const MOST_ROWS: usize = 16;

/// How the threads of a workgroup divide the work: see shaders/attention.wgsl.
#[derive(Debug, Clone, Copy)]
struct Tile {
    /// Rows of a thread: 1, 2 or 4.
    rows: usize,
    /// Sets of so many rows.
    blocks: usize,
    /// Threads of a set, and cells at a time: a multiple of [`RUN`].
    threads: usize,
    /// Threads that share a cell's scores.
    parts: usize,
}

/// What a load takes of keys or of values.
#[derive(Debug, Clone, Copy)]
struct Load {
    /// Channels.
    unit: usize,
    /// Whether heads are no whole multiples of eight channels.
    narrow: bool,
}

impl Load {
    /// Loads of heads of `dim` channels, `wide` of them of blocks at a time; none if heads begin within a word.
    fn of(dtype: DType, dim: usize, wide: usize) -> Option<Load> {
        let load = |unit, narrow| Some(Load { unit, narrow });
        match dtype {
            DType::F32 | DType::F16 if dim.is_multiple_of(8) => load(8, false),
            DType::F32 => load(1, true),
            DType::F16 => load(2, true).filter(|_| dim.is_multiple_of(2)),
            _ => load(wide, false),
        }
    }

    fn keys(keys: &Meta) -> Option<Load> {
        Self::of(keys.dtype, keys.shape[2], if keys.dtype == DType::Q4_0 { 32 } else { 16 })
    }

    fn values(values: &Meta) -> Option<Load> {
        Self::of(values.dtype, values.shape[2], 8)
    }
}

/// How the threads of a set take values.
#[derive(Debug, Clone, Copy)]
struct Shares {
    /// Units of a thread.
    own: usize,
    /// Threads that have all of a cell's units together.
    lanes: usize,
    /// Shares of the cells.
    shares: usize,
    /// Cells of a share in a run.
    steps: usize,
}

impl Shares {
    fn of(units: usize, threads: usize) -> Shares {
        let own = units.div_ceil(threads);
        let lanes = units.div_ceil(own);
        let steps = RUN.div_ceil((threads / lanes).min(RUN / AHEAD)).next_multiple_of(AHEAD);
        Shares { own, lanes, shares: RUN.div_ceil(steps), steps }
    }
}

/// The shapes of a problem.
struct Heads<'a> {
    src: &'a [Meta],
    keys: Load,
    values: Load,
    role: Role,
    tokens: usize,
    kv_heads: usize,
    group: usize,
    dim: usize,
    value_dim: usize,
}

impl<'a> Heads<'a> {
    fn of(role: Role, src: &'a [Meta]) -> Option<Heads<'a>> {
        let (q, kv_heads) = (&src[0].shape, src[1].shape[1]);
        let (keys, values) = (Load::keys(&src[1])?, Load::values(&src[2])?);
        let (dim, value_dim) = (q[2], src[2].shape[2]);
        Some(Heads { src, keys, values, role, tokens: q[0], kv_heads, group: q[1] / kv_heads, dim, value_dim })
    }

    /// Rows of a unit, which tiles do not cross, of some tokens: of one answer's, or of all of a prompt's.
    fn unit(&self, of: &Range<usize>) -> usize {
        self.group * if self.role == Role::Answer { 1 } else { of.len() }
    }

    /// The same of the whole batch.
    fn rows(&self) -> usize {
        self.group * if self.role == Role::Answer { 1 } else { self.tokens }
    }

    fn shares(&self, tile: &Tile) -> Shares {
        Shares::of(self.value_dim / self.values.unit, tile.threads)
    }

    /// Bytes of workgroup memory: queries, parts of scores, weights, greatest scores.
    fn shared(&self, tile: &Tile) -> usize {
        let Tile { rows, blocks, threads, parts } = *tile;
        let queries = self.dim / self.keys.unit * (self.keys.unit + 1);
        let Shares { shares, steps, .. } = self.shares(tile);
        let weights = threads / RUN * steps * shares;
        4 * rows * blocks * (queries + parts * (threads + 8 / parts) + weights + threads / 8)
    }

    /// The best tile that fits the device's workgroups, if any does: as many rows as there are to fill, then as many threads.
    fn tile(&self, caps: &Caps) -> Option<Tile> {
        let tile = |rows, blocks, threads, parts| Tile { rows, blocks, threads, parts };
        let few = match self.rows() {
            1 => 1,
            2 => 2,
            _ => 4,
        };
        let mut all = Vec::new();
        if self.rows() > 8 {
            all.extend([tile(4, 4, 64, 4), tile(4, 4, 64, 2)]);
        }
        if self.rows() > 4 {
            all.extend([tile(4, 2, 128, 4), tile(4, 2, 128, 2), tile(4, 2, 64, 4), tile(4, 2, 64, 2)]);
        }
        for rows in [4, 2, 1].into_iter().filter(|rows| *rows <= few) {
            all.extend([tile(rows, 1, 128, 4), tile(rows, 1, 128, 2), tile(rows, 1, 64, 4), tile(rows, 1, 64, 1)]);
        }
        // Of wider or packed channels two cells at a time fill the registers.
        let most = if self.src[1].dtype == DType::F16 && !self.keys.narrow { 4 } else { 2 };
        let loads = self.dim / self.keys.unit;
        let parts =
            |n: usize| [4, 2, 1].into_iter().find(|p| *p <= n.min(most) && loads.is_multiple_of(*p)).unwrap_or(1);
        let fits = |t: &Tile| {
            self.shared(t) <= caps.max_shared as usize && t.blocks * t.threads <= caps.max_invocations as usize
        };
        all.into_iter().map(|t| Tile { parts: parts(t.parts), ..t }).find(fits)
    }
}

/// How cells are split among workgroups.
#[derive(Debug, Clone, Copy)]
struct Split {
    /// How many there are.
    splits: usize,
    /// Cells of each.
    span: usize,
}

impl Attention {
    /// Splits of `span` cells for all that a batch may see. Splits begin at multiples of `span`, windows anywhere.
    fn splits_of(&self, src: &[Meta], span: usize) -> Split {
        let unaligned = usize::from(self.window > 0);
        let splits = (self.cells(src).div_ceil(span) + unaligned).min(self.context.div_ceil(span));
        Split { splits, span }
    }

    /// Whether, and how, cells are split where `blocks` workgroups have queries of a unit. So answers are split in one way, whatever
    /// their number.
    fn split(&self, heads: &Heads, blocks: usize, caps: &Caps) -> Option<Split> {
        if heads.role == Role::Piece {
            return Some(self.splits_of(heads.src, PIECE_SPAN)).filter(|_| self.context > PIECE_SPAN);
        }
        if blocks >= WORKGROUPS {
            return None;
        }
        let most = match heads.role {
            Role::Answer => caps.max_workgroups as usize,
            Role::Prompt => MOST_WORKGROUPS / blocks,
            Role::Piece => unreachable!("pieces are split in one way"),
        };
        let span = self.cells(heads.src).div_ceil(most).next_multiple_of(SPAN);
        Some(self.splits_of(heads.src, span)).filter(|split| split.splits > 1)
    }

    /// The kernels, best first; none if heads begin within a word of the cache, or a workgroup has no room for one.
    pub(super) fn kernels(&self, src: &[Meta], caps: &Caps) -> Vec<Kernel> {
        let Some(heads) = Heads::of(self.role, src) else { return Vec::new() };
        let Some(tile) = heads.tile(caps) else { return Vec::new() };
        let blocks = heads.rows().div_ceil(tile.rows * tile.blocks) * heads.kv_heads;
        let split = self.split(&heads, blocks, caps);
        // The other way of dealing with the cells is a variant as well, so that both are tested on every shape.
        let other = if split.is_some() { None } else { Some(self.splits_of(src, tile.threads)) };
        [split, other].into_iter().map(|split| self.kernel(&heads, &tile, split, caps)).collect()
    }

    fn kernel(&self, heads: &Heads, tile: &Tile, split: Option<Split>, caps: &Caps) -> Kernel {
        let rows = tile.rows * tile.blocks;
        let operations = 2.0 * (rows * heads.kv_heads * (heads.dim + heads.value_dim) * self.cells(heads.src)) as f64;
        let Some(split) = split else {
            let passes = self.main(heads, tile, split, 0..heads.tokens).pieces(rows, operations, caps);
            let variant = match rows {
                16 => "rows16",
                8 => "rows8",
                4 => "rows4",
                2 => "rows2",
                _ => "rows1",
            };
            return Kernel { variant, passes, scratch: vec![], rounding: 0.0 };
        };
        // Answers take turns with the room for their sums.
        let sums_of_token = heads.group * heads.kv_heads * split.splits;
        let together = self.tokens_together(heads, sums_of_token);
        let mut passes = Vec::new();
        for first in (0..heads.tokens).step_by(together) {
            let tokens = first..(first + together).min(heads.tokens);
            passes.extend(self.main(heads, tile, Some(split), tokens.clone()).pieces(rows, operations, caps));
            passes.push(self.reduce(heads, tile, split, tokens));
        }
        let sums = together * sums_of_token;
        Kernel { variant: "split", passes, scratch: vec![4 * sums * heads.value_dim, 8 * sums], rounding: 0.0 }
    }

    /// How many tokens are split at a time: of answers as many as there is room for.
    fn tokens_together(&self, heads: &Heads, sums_of_token: usize) -> usize {
        match heads.role {
            Role::Prompt => heads.tokens,
            Role::Answer => (MOST_SUMS / sums_of_token / heads.value_dim).clamp(1, heads.tokens),
            Role::Piece => {
                let most = MOST_SUMS / sums_of_token / heads.value_dim;
                // Tiles begin with pieces, and these at multiples of so many tokens.
                (most / MOST_ROWS * MOST_ROWS).max(MOST_ROWS).min(heads.tokens)
            }
        }
    }

    fn main(&self, heads: &Heads, tile: &Tile, split: Option<Split>, of: Range<usize>) -> Pass {
        let [q, keys, values, ..] = heads.src else { unreachable!("attention has at least four sources") };
        let sinks = heads.src.len() > 4 && split.is_none();
        let Shares { own, lanes, shares, steps } = heads.shares(tile);
        let mut flags = vec![["ROWS_1", "ROWS_2", "ROWS_4"][tile.rows.ilog2() as usize]];
        flags.extend(cache_flags(keys.dtype, values.dtype));
        flags.extend(heads.keys.narrow.then_some("KEYS_NARROW"));
        flags.extend(heads.values.narrow.then_some("VALUES_NARROW"));
        flags.extend((tile.threads / tile.parts > RUN).then_some("FAR"));
        flags.extend(split.map(|_| "SPLIT"));
        flags.extend(sinks.then_some("SINKS"));
        flags.extend((self.max_bias != 0.0).then_some("ALIBI"));
        let mut params = vec![
            ("kv_heads", heads.kv_heads.into()),
            ("q_stride", q.stride.into()),
            ("window", self.window.into()),
            ("cells", self.context.into()),
            ("unit", heads.unit(&of).into()),
            ("first_token", of.start.into()),
            ("begins", (heads.tokens * (1 + self.group)).into()),
            ("scale", self.scale.into()),
            ("softcap", self.softcap.into()),
        ];
        if self.max_bias != 0.0 {
            let slopes = self.slopes(q.shape[1]);
            let powers = 1usize << q.shape[1].ilog2();
            let rest = slopes.get(powers).copied().unwrap_or(0.0);
            params.extend([
                ("slope_base", slopes[0].into()),
                ("slope_base_rest", rest.into()),
                ("slope_heads", powers.into()),
            ]);
        }
        params.extend(split.iter().flat_map(|s| [("splits", s.splits.into()), ("span", s.span.into())]));
        params.extend(scale_planes(keys, values));
        let mut binds =
            vec![("q", Bind::Src(0)), ("keys", Bind::Src(1)), ("values", Bind::Src(2)), ("places", Bind::Src(3))];
        binds.push(("y", if split.is_some() { Bind::Scratch(0) } else { Bind::Dst }));
        binds.extend(split.map(|_| ("softmax", Bind::Scratch(1))));
        binds.extend(sinks.then_some(("sinks", Bind::Src(4))));
        let consts = [
            ("DIM", heads.dim),
            ("DIM_V", heads.value_dim),
            ("GROUP", heads.group),
            ("ROWS", tile.rows),
            ("BLOCKS", tile.blocks),
            ("THREADS", tile.threads),
            ("PARTS", tile.parts),
            ("WG", tile.blocks * tile.threads),
            ("TILE", tile.blocks * tile.rows),
            ("OWN", own),
            ("LANES", lanes),
            ("SHARES", shares),
            ("STEPS", steps),
        ];
        let units = if heads.role == Role::Answer { of.len() } else { 1 };
        let x = (units * heads.unit(&of).div_ceil(tile.rows * tile.blocks)) as u32;
        Pass {
            shader: "attention",
            flags,
            consts: consts.map(|(name, n)| (name, n as u32)).to_vec(),
            params,
            binds,
            workgroups: [x, heads.kv_heads as u32, split.map_or(1, |s| s.splits as u32)],
            ..Pass::default()
        }
    }

    /// The pass that merges what the splits have found.
    fn reduce(&self, heads: &Heads, tile: &Tile, split: Split, of: Range<usize>) -> Pass {
        let sinks = heads.src.len() > 4;
        let narrow = !heads.value_dim.is_multiple_of(4);
        let (threads, units) = (128, if narrow { heads.value_dim } else { heads.value_dim / 4 });
        let own = units.div_ceil(threads);
        let lanes = units.div_ceil(own);
        let mut flags = Vec::new();
        flags.extend(sinks.then_some("SINKS"));
        flags.extend(narrow.then_some("NARROW"));
        let consts = [
            ("DIM_V", heads.value_dim),
            ("GROUP", heads.group),
            ("TILE", tile.blocks * tile.rows),
            ("WG", threads),
            ("OWN", own),
            ("LANES", lanes),
            ("SHARES", threads / lanes),
        ];
        let mut binds = vec![
            ("partial", Bind::Scratch(0)),
            ("softmax", Bind::Scratch(1)),
            ("places", Bind::Src(3)),
            ("y", Bind::Dst),
        ];
        binds.extend(sinks.then_some(("sinks", Bind::Src(4))));
        let all = heads.group * heads.kv_heads;
        Pass {
            shader: "attention_reduce",
            flags,
            consts: consts.map(|(name, n)| (name, n as u32)).to_vec(),
            params: vec![
                ("heads", all.into()),
                ("splits", split.splits.into()),
                ("span", split.span.into()),
                ("window", self.window.into()),
                ("cells", self.context.into()),
                ("unit", heads.unit(&of).into()),
                ("first_token", of.start.into()),
                ("begins", (heads.tokens * (1 + self.group)).into()),
            ],
            binds,
            workgroups: [all as u32, of.len() as u32, 1],
            ..Pass::default()
        }
    }

    /// See [`Op::most_scratch`](super::Op::most_scratch).
    pub(super) fn scratch_of_any_batch(&self, src: &[Meta]) -> Vec<usize> {
        let (q, value_dim) = (&src[0].shape, src[2].shape[2]);
        let splits = self.splits_of(src, SPAN).splits;
        let (of_token, all) = (q[1] * splits, q[0] * q[1] * splits);
        // Of one token all splits; of several of a prompt as many as there are workgroups, each with sums of its rows.
        let several = match self.role {
            Role::Prompt => all.min(MOST_ROWS * (MOST_WORKGROUPS + WORKGROUPS)),
            Role::Answer => all.min(MOST_SUMS / value_dim),
            Role::Piece => all.min((MOST_SUMS / value_dim).max(MOST_ROWS * of_token)),
        };
        let sums = several.max(of_token);
        if splits > 1 { vec![4 * sums * value_dim, 8 * sums] } else { Vec::new() }
    }
}
