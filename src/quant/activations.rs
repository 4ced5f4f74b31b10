//! Activations, prepared once for all the weight rows that they meet.
//!
//! For quantized weights: 16-bit fixed point with one f32 scale per 32 values, for every format, so that one preparation
//! serves weights of mixed formats. Each value lies in two bytes, value = scale · (256 · high + low): the instructions
//! multiply bytes, and a shift between the two sums of products makes one of them. Prompts may leave the low byte away, but
//! for outliers (see [`OUTLIER`]), which are multiplied in a second pass.
//! For plain weights: the f32 values themselves, or 14 bits where prompts meet F16 or BF16 (see `dot_pairs`).

use super::dot_pairs::{self, PairTile};
use super::dot_tiles;
use super::format::format;
use super::tile::{Byte, CHUNK, FloatTile, IntTile, TILE, Terms, Weights};
use crate::base::{DType, Role};
use crate::simd::{Kernel, Level, Simd, TILE_ROWS, Tile, Tiles, array, array_mut, dot};

/// How many times the root mean square of its column the largest value of a chunk must be for the chunk to keep 16 bits where
/// the rest is rounded to 8. Of normal values hardly any is; what trained models have of outliers makes most of the error:
/// of SmolLM2-135M's chunks 4 % are above this, and with them goes half of what 8 bits add to the log-likelihood of 10,000
/// tokens of English (0.11 % without, 0.05 % with them).
pub const OUTLIER: f32 = 8.0;
/// What rounding to 8 bits may add to the error of products, as normalised mean squared error. A step of the codes is 127th of the
/// largest of 32 values, which is at most [`OUTLIER`] times the root mean square, and the mean square of what rounding to steps leaves is
/// their twelfth. Of normal values it is a tenth of this.
pub const EIGHT_BITS: f64 = (OUTLIER as f64 / 127.0) * (OUTLIER as f64 / 127.0) / 12.0;

/// To how many bits activations are rounded where they meet quantized weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// 16: as good as f32.
    #[default]
    Sixteen,
    /// 16, but bf16 in prompts where there are units for tiles of it: three times as fast there, and off by 0.2 % in each product.
    SixteenOrTiles,
    /// 8 where weights are quantized, but for outliers: half the work, an error of about 1 % in each product, as in most CPU
    /// runtimes. 14 where weights are F16 or BF16. Where there are units for tiles of bf16, both are rounded to that for prompts:
    /// better than 8 bits. F32 weights always meet f32.
    Eight,
}

/// A team that work on a slice can be shared out to.
pub trait Team {
    /// Calls `f(i, chunk)` for every `len` values of `data`.
    fn chunks<T: Send>(&self, data: &mut [T], len: usize, f: impl Fn(usize, &mut [T]) + Sync);
}

/// The team of one.
pub struct Alone;

impl Team for Alone {
    fn chunks<T: Send>(&self, data: &mut [T], len: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        data.chunks_mut(len.max(1)).enumerate().for_each(|(i, chunk)| f(i, chunk));
    }
}

impl Precision {
    /// What suits a model whose hidden state has so many values. Models of less than 1024 are small: rounding to 8 bits shows most
    /// in them, and they are fast anyway.
    pub fn for_width(width: usize) -> Precision {
        if width < 1024 { Precision::SixteenOrTiles } else { Precision::Eight }
    }
}

/// What activations are held as.
#[derive(Debug, Clone, Copy, Default)]
enum Held {
    Ints,
    Pairs,
    Tiles(Tiles),
    #[default]
    Floats,
}

/// From so many columns on a product is bound by arithmetic.
const MANY_COLUMNS: usize = 16;

/// Columns of activations of `k` values each, made ready for weights of some type. Buffers are kept from one
/// [`fill`](Activations::fill) to the next.
#[derive(Debug, Default)]
pub struct Activations {
    k: usize,
    columns: usize,
    held: Held,
    precision: Precision,
    /// The weights for which the tiles' terms are.
    met: Option<Weights>,
    /// `[columns, tiles]`, for quantized weights.
    ints: Vec<IntTile>,
    /// `[columns, tiles]`, for plain weights.
    floats: Vec<FloatTile>,
    /// `[columns, tiles]`, for plain weights of 16 bits that meet many columns.
    pairs: Vec<PairTile>,
    /// `[tiles, groups of sixteen columns, chunks]`, with an even number of groups, for units that multiply tiles.
    tiles: Vec<Tile>,
}

impl Activations {
    /// None yet.
    pub const fn new() -> Self {
        Activations {
            k: 0,
            columns: 0,
            held: Held::Floats,
            precision: Precision::Sixteen,
            met: None,
            ints: Vec::new(),
            floats: Vec::new(),
            pairs: Vec::new(),
            tiles: Vec::new(),
        }
    }

    /// Takes `columns` inputs of `k` values, `stride` values apart in `x`, for weights of type `dtype`, and rounds them to
    /// `precision` if those are quantized. Inputs of prompts may be rounded in other ways than those of answers, but their number never
    /// decides.
    /// Allocates only where the buffers have never been as large. NaN and infinite values make the results NaN or
    /// infinite. Panics where `x` is too short, or `k` is no multiple of the type's block.
    pub fn fill(
        &mut self,
        team: &impl Team,
        (dtype, precision, role): (DType, Precision, Role),
        x: &[f32],
        [stride, columns, k]: [usize; 3],
    ) {
        self.fill_at(Level::best(), team, (dtype, precision, role), x, [stride, columns, k]);
    }

    /// [`fill`](Activations::fill) with the instructions of `level`.
    pub fn fill_at(
        &mut self,
        level: Level,
        team: &impl Team,
        (dtype, precision, role): (DType, Precision, Role),
        x: &[f32],
        [stride, columns, k]: [usize; 3],
    ) {
        assert!(k.is_multiple_of(format(dtype).dtype.block()), "{k} values are no whole blocks of {dtype}");
        assert!(columns < 2 || stride >= k, "inputs of {k} values lie {stride} apart");
        (self.k, self.columns) = (k, columns);
        let tiles = level.tiles().filter(|_| precision != Precision::Sixteen && role.is_prompt());
        self.held = match (dtype, tiles) {
            (DType::F32, _) => Held::Floats,
            (_, Some(tiles)) => Held::Tiles(tiles),
            _ if dtype.is_quantized() => Held::Ints,
            _ if precision == Precision::Eight && role.is_prompt() => Held::Pairs,
            _ => Held::Floats,
        };
        self.precision = precision;
        // With the weights that they are for; others are met before the product.
        self.met = self.needs(level, dtype);
        let terms = self.met.map(|weights| (self.bytes(), weights));
        match self.held {
            Held::Ints => {
                let tiles = k.div_ceil(TILE);
                team.chunks(first_of(&mut self.ints, columns * tiles, IntTile::ZERO), tiles, |c, to| {
                    let x = &x[c * stride..c * stride + k];
                    let limit = match precision {
                        Precision::Sixteen | Precision::SixteenOrTiles => 0.0,
                        Precision::Eight => OUTLIER * rms(x),
                    };
                    x.chunks(TILE).zip(to).for_each(|(x, to)| level.run(Quantize { x, to, limit, terms }));
                });
            }
            Held::Pairs => {
                let tiles = k.div_ceil(dot_pairs::TILE);
                team.chunks(first_of(&mut self.pairs, columns * tiles, PairTile::ZERO), tiles, |c, to| {
                    let x = x[c * stride..c * stride + k].chunks(dot_pairs::TILE);
                    x.zip(to).for_each(|(x, to)| level.run(dot_pairs::Quantize { x, to }));
                });
            }
            Held::Tiles(_) => {
                let groups = columns.div_ceil(dot_tiles::COLUMNS) * 2;
                self.tiles.resize(k.div_ceil(dot_tiles::TILE) * groups * dot_tiles::CHUNKS, Tile([[0; _]; _]));
                team.chunks(&mut self.tiles, dot_tiles::CHUNKS, |i, to| {
                    let (first, c) = (i / groups * dot_tiles::TILE, i % groups * TILE_ROWS);
                    let sizes = [columns.saturating_sub(c), first, dot_tiles::TILE.min(k - first)];
                    level.run(dot_tiles::Round { x: x.get(c * stride..).unwrap_or_default(), stride, sizes, to });
                });
            }
            Held::Floats => {
                let tiles = k.div_ceil(TILE);
                team.chunks(first_of(&mut self.floats, columns * tiles, FloatTile::ZERO), tiles, |c, to| {
                    for (x, to) in x[c * stride..c * stride + k].chunks(TILE).zip(to) {
                        let (to, pad) = to.0.as_flattened_mut().split_at_mut(x.len());
                        to.copy_from_slice(x);
                        pad.fill(0.0);
                    }
                });
            }
        }
    }

    /// Gets ready for weights of type `dtype`, of the same `k`: to be called before the first product with them.
    pub fn meet(&mut self, dtype: DType) {
        self.meet_at(Level::best(), dtype);
    }

    /// [`meet`](Activations::meet) with the instructions of `level`.
    pub fn meet_at(&mut self, level: Level, dtype: DType) {
        let weights = self.needs(level, dtype);
        if let Some(weights) = weights.filter(|_| weights != self.met) {
            let bytes = self.bytes();
            let used = self.columns * self.k.div_ceil(TILE);
            self.ints[..used].iter_mut().for_each(|tile| tile.terms = Terms::of(tile, bytes, weights));
            self.met = Some(weights);
        }
    }

    /// What must be known of weights to meet them; nothing where bytes are multiplied together.
    fn needs(&self, level: Level, dtype: DType) -> Option<Weights> {
        matches!(self.held, Held::Ints).then(|| (format(dtype).panels.weights)(level))
    }

    /// Of which bytes tiles have terms.
    fn bytes(&self) -> Byte {
        if self.in_eight() { Byte::High } else { Byte::Both }
    }

    /// Whether products with weights of this type can be made now.
    pub(super) fn knows(&self, level: Level, dtype: DType) -> bool {
        self.needs(level, dtype).is_none_or(|weights| self.met == Some(weights))
    }

    /// Number of inputs.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Whether they are bytes, but for outliers.
    pub(super) fn in_eight(&self) -> bool {
        matches!(self.held, Held::Ints) && self.precision == Precision::Eight
    }

    /// Whether rows of weights are best taken in batches: columns are so many that they would be fetched too often, or meet weights that are
    /// unpacked to memory.
    pub fn want_batches(&self) -> bool {
        let direct = matches!(self.held, Held::Ints) && !self.in_eight() && Level::best().registers() >= 32;
        self.columns >= if direct { 4 * MANY_COLUMNS } else { MANY_COLUMNS }
    }

    /// Values per input.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Whether these activations fit weights of this type.
    pub fn suits(&self, dtype: DType) -> bool {
        match self.held {
            Held::Ints => dtype.is_quantized(),
            Held::Pairs => matches!(dtype, DType::F16 | DType::BF16),
            Held::Tiles(_) => dtype != DType::F32,
            Held::Floats => !dtype.is_quantized(),
        }
    }

    /// Whether they are there in pairs.
    pub(super) fn in_pairs(&self) -> bool {
        matches!(self.held, Held::Pairs)
    }

    /// Whether they are there as tiles of bf16.
    pub(super) fn in_tiles(&self) -> bool {
        matches!(self.held, Held::Tiles(_))
    }

    /// Tile `t` of all columns, group by group, and what multiplies it.
    pub(super) fn tiles(&self, t: usize) -> (Tiles, &[Tile]) {
        let Held::Tiles(unit) = self.held else { panic!("activations that are no tiles") };
        let each = self.columns.div_ceil(dot_tiles::COLUMNS) * 2 * dot_tiles::CHUNKS;
        (unit, &self.tiles[t * each..(t + 1) * each])
    }

    /// Tile `t` of a column, in pairs.
    #[inline(always)]
    pub(super) fn pairs(&self, column: usize, t: usize) -> &PairTile {
        &self.pairs[column * self.k.div_ceil(dot_pairs::TILE) + t]
    }

    /// Tile `t` of a column, for quantized weights.
    #[inline(always)]
    pub(super) fn ints(&self, column: usize, t: usize) -> &IntTile {
        &self.ints[column * self.k.div_ceil(TILE) + t]
    }

    /// Tile `t` of a column, for plain weights.
    #[inline(always)]
    pub(super) fn floats(&self, column: usize, t: usize) -> &FloatTile {
        &self.floats[column * self.k.div_ceil(TILE) + t]
    }
}

/// The first `n` of what is there, to be written; what is beyond stays for later.
fn first_of<T: Clone>(all: &mut Vec<T>, n: usize, zero: T) -> &mut [T] {
    if all.len() < n {
        all.resize(n, zero);
    }
    &mut all[..n]
}

/// The root of the mean square.
fn rms(x: &[f32]) -> f32 {
    (dot(x, x) / x.len().max(1) as f32).sqrt()
}

/// Quantizes up to [`TILE`] values, a multiple of [`CHUNK`].
struct Quantize<'a> {
    x: &'a [f32],
    to: &'a mut IntTile,
    /// Chunks whose largest value is not above this get no low bytes.
    limit: f32,
    /// What terms are of and for.
    terms: Option<(Byte, Weights)>,
}

impl Kernel for Quantize<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Quantize { x, to, limit, terms } = self;
        to.wide = 0;
        let high = to.high.as_flattened_mut();
        let low = to.low.as_flattened_mut();
        let (x, _) = x.as_chunks::<CHUNK>();
        // What rounding leaves is at most half; 128 would be out of range, and 127 is off by a 65,000th of the largest value.
        let (top, bottom) = (s.splat(127.0), s.splat(-127.0));
        for (b, x) in x.iter().enumerate() {
            let halves = [s.floats(array(x, 0)), s.floats(array(x, 16))];
            let amax = s.amax(halves[0], halves[1]);
            // The inverse of less would overflow; such a chunk is as good as zero.
            let inverse = s.splat(if amax > 1e-36 { 127.0 / amax } else { 0.0 });
            to.scales[b] = amax / (127.0 * 256.0);
            let wide = amax > limit;
            to.wide |= u16::from(wide) << b;
            for (i, v) in halves.into_iter().enumerate() {
                let at = CHUNK * b + 16 * i;
                let v = s.mul(v, inverse);
                s.store_i8(v, array_mut(high, at));
                if !wide {
                    low[at..at + 16].fill(0);
                    continue;
                }
                let rest = s.mul(s.sub(v, s.widen_i8(array(high, at))), s.splat(256.0));
                s.store_i8(s.max(s.min(rest, top), bottom), array_mut(low, at));
            }
        }
        let (high, low) = (sums(s, &to.high), sums(s, &to.low));
        for b in 0..TILE / CHUNK {
            for i in 0..2 {
                let [high, low] = [high[b][i] as i32, low[b][i] as i32];
                (to.sums[b][i], to.low_sums[b][i]) = (256 * high + low, low);
            }
        }
        if let Some((bytes, weights)) = terms {
            to.terms = Terms::of(to, bytes, weights);
        }
    }
}

/// The sums of both halves of each chunk, exact.
#[inline(always)]
fn sums<S: Simd>(s: S, codes: &[[i8; 4]; TILE / 4]) -> [[f32; 2]; TILE / CHUNK] {
    let mut sums = [[0.0; 2]; TILE / CHUNK];
    let fours = codes.as_chunks::<64>().0.iter().zip(sums.as_flattened_mut().as_chunks_mut::<16>().0);
    for (codes, sums) in fours {
        let mut v = [s.splat(0.0); 4];
        for (i, v) in v.iter_mut().enumerate() {
            // Codes take the place of weights, which have more bits and meet ones.
            let words = s.weights_signed(s.words(bytemuck::cast_ref(array::<_, 16>(codes, 16 * i))));
            *v = s.to_floats(s.dot_words(s.splat_int(-4 * s.signed_zero()), words, [1; 4], true));
        }
        let mut lanes = [0.0; 16];
        s.store(s.fold(v), &mut lanes);
        for (l, sum) in lanes.into_iter().enumerate() {
            sums[l % 4 * 4 + l / 4] = sum;
        }
    }
    sums
}
