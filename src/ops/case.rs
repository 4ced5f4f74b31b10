//! Test and bench cases: an op with inputs to make up, and how exact its result must be.

use super::places::{NO_ROW, PAGE_CELLS, lay_tables, places_len};
use crate::base::{DType, Meta, View};

/// One case of one op.
#[derive(Debug, Clone)]
pub struct Case<O> {
    /// The op with its parameters.
    pub op: O,
    /// How to fill each source.
    pub src: Vec<Input>,
    /// Largest normalised mean squared error against the f64 oracle; 0 wants equality.
    pub nmse: f64,
}

/// How to fill one source of a case.
#[derive(Debug, Clone)]
pub struct Input {
    /// Type, shape and stride.
    pub meta: Meta,
    /// First value's place in its buffer, in elements: nonzero for views of a larger row.
    pub offset: usize,
    /// What the values are.
    pub fill: Fill,
}

/// What the made-up values are.
#[derive(Debug, Clone, Copy)]
pub enum Fill {
    /// Uniform in `offset ± scale`, in any float or block type.
    Uniform {
        /// Half the width.
        scale: f32,
        /// The middle.
        offset: f32,
    },
    /// 0 or 1, but for every so-manyth value, which is 32. Products of such values are exact in 8 bits where these are outliers
    /// (see [`crate::quant::OUTLIER`]) that keep 16, and only there.
    Outliers(usize),
    /// Whole numbers, uniform in `0..below` (`u32`, or `f32` as the router gives expert ids).
    Below(u32),
    /// `start, start + 1, …`
    Count(u32),
    /// All bits random: rope tables.
    Bits,
    /// These words in turn: parameter blocks.
    Words(&'static [u32]),
    /// Places of rows in a cache: see [`Input::places`].
    Places(Rows),
}

/// Made-up rows of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    /// How many.
    pub rows: usize,
    /// Of how many sequences they are, as many of each. If there are several, the last row is none.
    pub sequences: usize,
    /// The first one's position; other sequences are shorter.
    pub start: usize,
    /// Pages of the cache, all in tables, in random order.
    pub pages: usize,
}

impl Rows {
    /// The words of [`places_len`] for one group of layers.
    fn words(&self, random: &mut Random) -> Vec<u32> {
        let Rows { rows, sequences, start, pages } = *self;
        let mut order: Vec<u32> = (0..pages as u32).collect();
        (1..pages).rev().for_each(|i| order.swap(i, random.bits() as usize % (i + 1)));
        let (each, own) = (rows.div_ceil(sequences), pages / sequences);
        let position = |row: usize| match (row / each, row % each) {
            _ if sequences > 1 && row + 1 == rows => NO_ROW,
            (sequence, i) => (start.saturating_sub(7 * sequence) + i) as u32,
        };
        let mut words = Vec::from_iter((0..rows).map(position));
        lay_tables(&mut words, rows, 1, |_, row| (row / each * own) as u32, order);
        words
    }
}

impl Input {
    /// Packed values in ±1.
    pub fn uniform(meta: Meta) -> Self {
        Input { meta, offset: 0, fill: Fill::Uniform { scale: 1.0, offset: 0.0 } }
    }

    /// Packed `f32` values in ±1.
    pub fn f32(shape: impl Into<crate::base::Shape>) -> Self {
        Self::uniform(Meta::f32(shape))
    }

    /// Places of `rows` rows of some sequences from position `start` on, in a cache of `cells` in one group.
    pub fn places(rows: usize, sequences: usize, start: usize, cells: usize) -> Self {
        let rows = Rows { rows, sequences, start, pages: cells / PAGE_CELLS };
        Self::filled(Meta::new(DType::U32, [places_len(rows.rows, 1, rows.pages)]), Fill::Places(rows))
    }

    /// Packed values of another kind.
    pub fn filled(meta: Meta, fill: Fill) -> Self {
        Input { meta, offset: 0, fill }
    }

    /// The same values as a slice of wider rows, `offset` elements in.
    pub fn strided(mut self, stride: usize, offset: usize) -> Self {
        self.meta.stride = stride;
        self.offset = offset;
        self
    }
}

/// A source or result in f64, packed: what oracles compute with.
#[derive(Debug, Clone)]
pub struct Exact {
    /// Shape and the type it came from.
    pub meta: Meta,
    /// The values, packed row-major.
    pub data: Vec<f64>,
}

impl Exact {
    /// The exact values of a view; block formats are decoded (decoding is exact by definition).
    pub fn of(view: &View) -> Exact {
        let mut data = Vec::with_capacity(view.meta.shape.elements());
        let mut row = vec![0f32; view.meta.inner()];
        for i in 0..view.meta.outer() {
            match view.meta.dtype {
                DType::U32 => data.extend(bytemuck::cast_slice::<u8, u32>(view.row_bytes(i)).iter().map(|v| *v as f64)),
                dtype => {
                    crate::quant::decode(dtype, view.row_bytes(i), &mut row);
                    data.extend(row.iter().map(|v| *v as f64));
                }
            }
        }
        Exact { meta: Meta::new(view.meta.dtype, view.meta.shape), data }
    }

    /// The values of a `u32` tensor.
    pub fn words(&self) -> Vec<u32> {
        self.data.iter().map(|v| *v as u32).collect()
    }

    /// Row `i` of the outermost dimension.
    pub fn row(&self, i: usize) -> &[f64] {
        let n = self.meta.inner();
        &self.data[i * n..(i + 1) * n]
    }
}

/// The generator behind made-up inputs: splitmix64. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators" (2014).
pub struct Random(pub u64);

impl Random {
    /// The next 32 random bits.
    pub fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 32) as u32
    }

    /// Uniform in −1 … 1.
    pub fn signed(&mut self) -> f32 {
        (self.bits() >> 8) as f32 / (1 << 23) as f32 - 1.0
    }
}

impl Input {
    /// Made-up bytes for the whole buffer: from its start, before [`offset`](Input::offset), to the last value and its row.
    pub fn bytes(&self, seed: u64) -> Vec<u8> {
        let mut random = Random(seed);
        let row = self.meta.shape.row();
        let elements =
            (self.offset + self.meta.outer() * self.meta.stride.max(self.meta.inner())).next_multiple_of(row);
        let mut floats = |f: &mut dyn FnMut(&mut Random, usize) -> f32| -> Vec<f32> {
            (0..elements).map(|i| f(&mut random, i)).collect()
        };
        let as_words = |values: Vec<u32>| bytemuck::cast_slice(&values).to_vec();
        match (self.fill, self.meta.dtype) {
            (Fill::Uniform { scale, offset }, dtype) => {
                let values = floats(&mut |r, _| r.signed() * scale + offset);
                let mut bytes = vec![0; dtype.row_bytes(elements).expect("cases use whole blocks")];
                crate::quant::encode(dtype, &values, row, &mut bytes);
                bytes
            }
            (Fill::Outliers(every), _) => {
                let value =
                    |r: &mut Random, i: usize| if i % every == every / 2 { 32.0 } else { (r.bits() % 2) as f32 };
                bytemuck::cast_slice(&floats(&mut { value })).to_vec()
            }
            (Fill::Below(n), DType::F32) => bytemuck::cast_slice(&floats(&mut |r, _| (r.bits() % n) as f32)).to_vec(),
            (Fill::Below(n), _) => as_words((0..elements).map(|_| random.bits() % n).collect()),
            (Fill::Count(start), _) => as_words((start..).take(elements).collect()),
            (Fill::Bits, _) => as_words((0..elements).map(|_| random.bits()).collect()),
            (Fill::Words(words), _) => as_words(words.iter().copied().cycle().take(elements).collect()),
            (Fill::Places(rows), _) => as_words([vec![0; self.offset], rows.words(&mut random)].concat()),
        }
    }

    /// The tensor in `bytes` made by [`bytes`](Input::bytes).
    pub fn view<'a>(&self, bytes: &'a [u8]) -> View<'a> {
        let start = self.meta.dtype.row_bytes(self.offset).expect("cases begin at whole blocks");
        View::new(self.meta, &bytes[start..])
    }
}

/// Normalised mean squared error of `got` against `want`: Σ(got − want)² / Σ want². Infinite where `got` is not finite.
pub fn nmse(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let error: f64 = got.iter().zip(want).map(|(g, w)| (*g as f64 - w).powi(2)).sum();
    let norm: f64 = want.iter().map(|w| w * w).sum();
    if !error.is_finite() {
        return f64::INFINITY;
    }
    if error == 0.0 { 0.0 } else { error / norm.max(f64::MIN_POSITIVE) }
}
