//! Activations, prepared once for all the weight rows that they meet.
//!
//! For quantized weights: 16-bit fixed point with one f32 scale per 32 values, for every format, so that one preparation
//! serves weights of mixed formats. Each value lies in two bytes, value = scale · (256 · high + low): the instructions
//! multiply bytes, and a shift between the two sums of products makes one of them (AVX2 joins both bytes where weights are signed). Prompts may leave the low byte away, but
//! for outliers (see [`OUTLIER`]), which are multiplied in a second pass.
//! For plain weights: the f32 values themselves, or 14 bits where prompts meet F16 or BF16 (see `dot_pairs`).

use super::dot_pairs::{self, PairTile};
use super::dot_tiles;
use super::fixed_point::Quantize;
use super::format::format;
use super::tile::{Byte, FloatTile, IntTile, TILE, Terms, WeightCodes};
use crate::base::{DType, Role, Threads, for_chunks};
use crate::simd::{Level, TILE_ROWS, Tile, Tiles, dot};
use std::cell::RefCell;

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

impl Precision {
    /// What suits a model whose hidden state has so many values. Models of less than 1024 are small: rounding to 8 bits shows most
    /// in them, and they are fast anyway.
    pub fn for_width(width: usize) -> Precision {
        if width < 1024 { Precision::SixteenOrTiles } else { Precision::Eight }
    }
}

/// What activations are held as.
#[derive(Debug, Clone, Copy, Default)]
enum Form {
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
    form: Form,
    precision: Precision,
    /// The weights for which the tiles' terms are.
    met: Option<WeightCodes>,
    /// `[columns, tiles]`, for quantized weights.
    ints: Vec<IntTile>,
    /// `[columns, tiles]`, for plain weights.
    floats: Vec<FloatTile>,
    /// `[columns, tiles]`, for plain weights of 16 bits that meet many columns.
    pairs: Vec<PairTile>,
    /// `[tiles, groups of sixteen columns, chunks]`, with an even number of groups, for units that multiply tiles.
    tiles: Vec<Tile>,
    /// `[columns, k]`: inputs that were made and are cut into `tiles`.
    made: Vec<f32>,
}

/// Where columns come from.
pub(super) enum Inputs<'a> {
    /// They are there, `stride` values apart.
    There { x: &'a [f32], stride: usize },
    /// Column c is written where it is wanted.
    Made(&'a (dyn Fn(usize, &mut [f32]) + Sync)),
}

thread_local! {
    // Kept, so that a decoded token allocates nothing once warm.
    static COLUMN: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl Inputs<'_> {
    /// Calls `f` with the `k` values of column `c`.
    fn with(&self, c: usize, k: usize, f: impl FnOnce(&[f32])) {
        match self {
            Inputs::There { x, stride } => f(&x[c * stride..c * stride + k]),
            Inputs::Made(make) => COLUMN.with_borrow_mut(|column| {
                let column = first_of(column, k, 0.0);
                make(c, column);
                f(column);
            }),
        }
    }
}

impl Activations {
    /// None yet.
    pub const fn new() -> Self {
        Activations {
            k: 0,
            columns: 0,
            form: Form::Floats,
            precision: Precision::Sixteen,
            met: None,
            ints: Vec::new(),
            floats: Vec::new(),
            pairs: Vec::new(),
            tiles: Vec::new(),
            made: Vec::new(),
        }
    }

    /// Takes `columns` inputs of `k` values, `stride` values apart in `x`, for weights of type `dtype`, and rounds them to
    /// `precision` if those are quantized. Inputs of prompts may be rounded in other ways than those of answers, but their number never
    /// decides.
    /// Allocates only if the buffers have never been as large. NaN and infinite values make the results NaN or
    /// infinite, of which sign is not said. Panics if `x` is too short, or `k` is no multiple of the type's block.
    pub fn fill(
        &mut self,
        threads: &dyn Threads,
        (dtype, precision, role): (DType, Precision, Role),
        x: &[f32],
        [stride, columns, k]: [usize; 3],
    ) {
        self.fill_at(Level::best(), threads, (dtype, precision, role), x, [stride, columns, k]);
    }

    /// [`fill`](Activations::fill) with the instructions of `level`.
    pub fn fill_at(
        &mut self,
        level: Level,
        threads: &dyn Threads,
        (dtype, precision, role): (DType, Precision, Role),
        x: &[f32],
        [stride, columns, k]: [usize; 3],
    ) {
        assert!(columns < 2 || stride >= k, "inputs of {k} values lie {stride} apart");
        self.take(level, threads, (dtype, precision, role), &Inputs::There { x, stride }, [columns, k]);
    }

    /// The same of inputs that `make(c, x)` writes to `x`, such as norms: the thread that rounds one makes it first, while its cache holds it.
    pub fn fill_made(
        &mut self,
        threads: &dyn Threads,
        kind: (DType, Precision, Role),
        make: &(dyn Fn(usize, &mut [f32]) + Sync),
        [columns, k]: [usize; 2],
    ) {
        self.take(Level::best(), threads, kind, &Inputs::Made(make), [columns, k]);
    }

    /// Takes `columns` inputs of `k` values.
    pub(super) fn take(
        &mut self,
        level: Level,
        threads: &dyn Threads,
        (dtype, precision, role): (DType, Precision, Role),
        inputs: &Inputs,
        [columns, k]: [usize; 2],
    ) {
        assert!(k.is_multiple_of(format(dtype).dtype.block()), "{k} values are no whole blocks of {dtype}");
        (self.k, self.columns) = (k, columns);
        let tiles = level.tiles().filter(|_| precision != Precision::Sixteen && role.is_prompt());
        self.form = match (dtype, tiles) {
            (DType::F32, _) => Form::Floats,
            (_, Some(tiles)) => Form::Tiles(tiles),
            _ if dtype.is_quantized() => Form::Ints,
            _ if precision == Precision::Eight && role.is_prompt() => Form::Pairs,
            _ => Form::Floats,
        };
        self.precision = precision;
        // With the weights that they are for; others are met before the product.
        self.met = self.needs(level, dtype);
        let terms = self.met.map(|weights| (self.bytes(), weights));
        match self.form {
            Form::Ints => {
                let tiles = k.div_ceil(TILE);
                for_chunks(threads, first_of(&mut self.ints, columns * tiles, IntTile::ZERO), tiles, |c, to| {
                    inputs.with(c, k, |x| {
                        let limit = match precision {
                            Precision::Sixteen | Precision::SixteenOrTiles => 0.0,
                            Precision::Eight => OUTLIER * rms(x),
                        };
                        level.run(Quantize { x, to, limit, terms });
                    });
                });
            }
            Form::Pairs => {
                let tiles = k.div_ceil(dot_pairs::TILE);
                for_chunks(threads, first_of(&mut self.pairs, columns * tiles, PairTile::ZERO), tiles, |c, to| {
                    inputs.with(c, k, |x| {
                        x.chunks(dot_pairs::TILE).zip(to).for_each(|(x, to)| level.run(dot_pairs::Quantize { x, to }));
                    });
                });
            }
            Form::Tiles(_) => self.cut_tiles(level, threads, inputs),
            Form::Floats => {
                let tiles = k.div_ceil(TILE);
                for_chunks(threads, first_of(&mut self.floats, columns * tiles, FloatTile::ZERO), tiles, |c, to| {
                    inputs.with(c, k, |x| {
                        for (x, to) in x.chunks(TILE).zip(to) {
                            let (to, pad) = to.0.as_flattened_mut().split_at_mut(x.len());
                            to.copy_from_slice(x);
                            pad.fill(0.0);
                        }
                    });
                });
            }
        }
    }

    /// Rounds inputs to tiles.
    fn cut_tiles(&mut self, level: Level, threads: &dyn Threads, inputs: &Inputs) {
        let (k, columns) = (self.k, self.columns);
        let groups = columns.div_ceil(dot_tiles::COLUMNS) * 2;
        self.tiles.resize(k.div_ceil(dot_tiles::TILE) * groups * dot_tiles::CHUNKS, Tile([[0; _]; _]));
        // A tile has values of many columns.
        let (x, stride) = match *inputs {
            Inputs::There { x, stride } => (x, stride),
            Inputs::Made(make) => {
                let made = first_of(&mut self.made, columns * k, 0.0);
                for_chunks(threads, made, k, make);
                (&*made, k)
            }
        };
        for_chunks(threads, &mut self.tiles, dot_tiles::CHUNKS, |i, to| {
            let (first, c) = (i / groups * dot_tiles::TILE, i % groups * TILE_ROWS);
            let sizes = [columns.saturating_sub(c), first, dot_tiles::TILE.min(k - first)];
            level.run(dot_tiles::Round { x: x.get(c * stride..).unwrap_or_default(), stride, sizes, to });
        });
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

    /// What must be known of weights to meet them; nothing unless bytes are multiplied together.
    fn needs(&self, level: Level, dtype: DType) -> Option<WeightCodes> {
        matches!(self.form, Form::Ints).then(|| (format(dtype).panels.weights)(level))
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
        matches!(self.form, Form::Ints) && self.precision == Precision::Eight
    }

    /// Whether rows of weights are best taken in batches: columns are so many that they would be fetched too often, or meet weights that are
    /// unpacked to memory.
    pub fn want_batches(&self) -> bool {
        let direct = matches!(self.form, Form::Ints) && !self.in_eight() && Level::best().registers() >= 32;
        self.columns >= if direct { 4 * MANY_COLUMNS } else { MANY_COLUMNS }
    }

    /// Values per input.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Whether these activations fit weights of this type.
    pub fn suits(&self, dtype: DType) -> bool {
        match self.form {
            Form::Ints => dtype.is_quantized(),
            Form::Pairs => matches!(dtype, DType::F16 | DType::BF16),
            Form::Tiles(_) => dtype != DType::F32,
            Form::Floats => !dtype.is_quantized(),
        }
    }

    /// Whether they are there in pairs.
    pub(super) fn in_pairs(&self) -> bool {
        matches!(self.form, Form::Pairs)
    }

    /// Whether they are there as tiles of bf16.
    pub(super) fn in_tiles(&self) -> bool {
        matches!(self.form, Form::Tiles(_))
    }

    /// Tile `t` of all columns, group by group, and what multiplies it.
    pub(super) fn tiles(&self, t: usize) -> (Tiles, &[Tile]) {
        let Form::Tiles(unit) = self.form else { panic!("activations that are no tiles") };
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
