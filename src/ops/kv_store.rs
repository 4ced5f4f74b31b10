//! Writes the batch's keys and values into the cache: cache[cell[t]] = x[t], rounded to the cache's type. Rows that are none are not
//! written.
//!
//! On a GPU a cache in blocks lies as weights of its type do: codes in one plane, scales in another (`quant::gpu_planes`).
//! Shaders: shaders/kv_store.wgsl, shaders/kv_write.wgsl.

use super::places::{RowPlaces, places_len};
use super::work::row_bytes;
use super::{Bind, Caps, Case, Exact, Input, Kernel, Op, Param, Pass, Threads, Work, share_out_alike};
use crate::base::{DType, Error, Meta, Result, View, ViewMut};
use crate::{quant, simd};
use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

/// Sources: keys `[cells, heads, dim]` and values `[cells, heads, value_dim]`, each of one of [`CACHE_TYPES`] (both updated in place;
/// the result is the keys), k `[tokens, heads, dim]`, v `[tokens, heads, value_dim]`, places (see `places.rs`), whose cells are below `cells`, each of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KvStore {
    /// The group of layers, whose tables are used.
    pub group: usize,
}

/// What a cache can be made of.
pub const CACHE_TYPES: &[DType] = &[DType::F16, DType::F32, DType::Q8_0, DType::Q4_0];

/// Types of keys and of values: two of [`CACHE_TYPES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheTypes {
    /// Of keys.
    pub keys: DType,
    /// Of values.
    pub values: DType,
}

impl CacheTypes {
    /// All pairs of two different types.
    pub fn mixed() -> impl Iterator<Item = CacheTypes> {
        let pair = |keys| CACHE_TYPES.iter().map(move |values| CacheTypes { keys, values: *values });
        CACHE_TYPES.iter().flat_map(move |keys| pair(*keys)).filter(|types| types.keys != types.values)
    }
}

impl From<DType> for CacheTypes {
    fn from(both: DType) -> Self {
        CacheTypes { keys: both, values: both }
    }
}

impl fmt::Display for CacheTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.keys == self.values {
            true => self.keys.fmt(f),
            false => write!(f, "{}/{}", self.keys, self.values),
        }
    }
}

/// An error unless x `[tokens, heads, dim]` can be kept in `cache`.
pub(super) fn check_cache(name: &str, cache: &Meta, x: &Meta) -> Result<()> {
    x.want(name, DType::F32)?;
    if !CACHE_TYPES.contains(&cache.dtype) {
        let names: Vec<&str> = CACHE_TYPES.iter().map(|t| t.name()).collect();
        let help = format!("use one of {}", names.join(", "));
        return Err(Error::unsupported(format!("the KV cache cannot be {}", cache.dtype)).help(help));
    }
    if !cache.shape.row().is_multiple_of(cache.dtype.block()) {
        let what = format!("heads of {} channels in a cache of {}", cache.shape.row(), cache.dtype);
        return Err(Error::unsupported(what).help("use a cache of f16"));
    }
    if cache.shape.dims()[1..] != x.shape.dims()[1..] || !cache.inner().is_multiple_of(2) {
        return Err(Error::format(format!("{name}: {x:?} does not fit the cache {cache:?}")));
    }
    Ok(())
}

/// Writes a row into its cell, rounded to the cache's type.
fn write_cell(dtype: DType, x: &[f32], out: &mut [u8]) {
    match dtype {
        DType::F32 => out.copy_from_slice(bytemuck::cast_slice(x)),
        DType::F16 => simd::f32_to_f16(x, bytemuck::cast_slice_mut(out)),
        _ => quant::encode(dtype, x, x.len(), out),
    }
}

thread_local! {
    // Kept, so that a decoded token allocates nothing once warm.
    static CELLS: RefCell<Vec<(usize, usize)>> = const { RefCell::new(Vec::new()) };
}

/// Writes the keys and values `row(t)` of each row that has a cell to it, rounded to the caches' types.
pub(super) fn write_cells<'a>(
    [keys, values]: [ViewMut; 2],
    (places, rows): (&RowPlaces, usize),
    row: impl Fn(usize) -> [&'a [f32]; 2] + Sync,
    pool: &dyn Threads,
) {
    let bytes = |cache: &ViewMut| cache.meta.dtype.row_bytes(cache.meta.inner()).expect("whole blocks");
    let (sizes, dtypes) = ([bytes(&keys), bytes(&values)], [keys.meta.dtype, values.meta.dtype]);
    CELLS.with_borrow_mut(|cells| {
        cells.clear();
        cells.extend((0..rows).filter_map(|t| Some((places.cell(t)?, t))));
        // In the order of the caches, which are cut into what each thread writes.
        cells.sort_unstable();
        let (mut rest, mut first) = ([keys.data, values.data], 0);
        let parts = cells.iter().map(|&(cell, t)| {
            let skip = cell.checked_sub(first).expect("each cell is of one row");
            first = cell + 1;
            let out = [0, 1].map(|i| {
                let (out, after) = std::mem::take(&mut rest[i])[skip * sizes[i]..].split_at_mut(sizes[i]);
                rest[i] = after;
                out
            });
            (t, out)
        });
        share_out_alike(pool, parts, |(t, out)| {
            row(t).into_iter().zip(out).zip(dtypes).for_each(|((x, out), dtype)| write_cell(dtype, x, out));
        });
    });
}

/// An error unless `places` has the places of `rows` rows in the tables of `group`.
pub(super) fn check_places(name: &str, places: &Meta, rows: usize, group: usize) -> Result<()> {
    places.want(name, DType::U32)?;
    match places.outer() >= places_len(rows, 1 + group, 0) {
        true => Ok(()),
        false => Err(Error::format(format!("{name}: {places:?} has no places of {rows} rows in group {group}"))),
    }
}

/// The flags that pick a cache's types in shaders: `KEYS_F16` and the like, `VALUES_F16`, and `KV_F16` where either is so.
pub(super) fn cache_flags(keys: DType, values: DType) -> Vec<&'static str> {
    let names: fn(DType) -> [&'static [&'static str]; 3] = |dtype| match dtype {
        DType::F32 => [&["KEYS_F32"], &["VALUES_F32"], &["KV_F32"]],
        DType::F16 => [&["KEYS_F16"], &["VALUES_F16"], &["KV_F16"]],
        DType::Q8_0 => [&["KEYS_BLOCKS", "KEYS_Q8_0"], &["VALUES_BLOCKS", "VALUES_Q8_0"], &["KV_BLOCKS", "KV_Q8_0"]],
        _ => [&["KEYS_BLOCKS", "KEYS_Q4_0"], &["VALUES_BLOCKS", "VALUES_Q4_0"], &["KV_BLOCKS", "KV_Q4_0"]],
    };
    let (of_keys, of_values) = (names(keys), names(values));
    let mut flags = [of_keys[0], of_values[1], of_keys[2]].concat();
    flags.extend(of_values[2].iter().filter(|flag| !of_keys[2].contains(flag)));
    flags
}

/// The words at which the scales of keys and of values begin, as shaders want them.
pub(super) fn scale_planes(keys: &Meta, values: &Meta) -> Vec<(&'static str, Param)> {
    let plane = |m: &Meta| quant::gpu_planes(m.dtype, m.outer(), m.inner()).planes[1] as usize;
    let both = [("key_scales", keys), ("value_scales", values)];
    both.into_iter().filter(|(_, m)| m.dtype.is_quantized()).map(|(name, m)| (name, plane(m).into())).collect()
}

impl Op for KvStore {
    const NAME: &str = "kv_store";
    const IN_PLACE: Option<usize> = Some(0);

    fn updates(&self) -> Range<usize> {
        1..2
    }

    fn infer(&self, src: &[Meta]) -> Result<Meta> {
        check_cache(Self::NAME, &src[0], &src[2])?;
        check_cache(Self::NAME, &src[1], &src[3])?;
        check_places(Self::NAME, &src[4], src[2].outer(), self.group)?;
        Ok(src[0])
    }

    fn caches(&self) -> Range<usize> {
        0..2
    }

    fn work(&self, src: &[Meta], dst: &Meta, _depth: usize) -> Work {
        // Of the caches only the batch's cells are written.
        let written = |cache: &Meta| row_bytes(cache) * src[2].outer() as f64;
        let mut work = Work { result: 0.0, ..Work::of_values(src, dst) };
        self.caches().for_each(|i| work.sources[i] = written(&src[i]));
        work.other = (src[2].shape.elements() + src[3].shape.elements()) as f64;
        work
    }

    fn cpu(&self, _src: &[View], _dst: ViewMut, _pool: &dyn Threads) {
        unreachable!("it updates the values too");
    }

    fn cpu_updating(&self, src: &[View], dst: ViewMut, more: &mut [ViewMut], pool: &dyn Threads) {
        let rows = src[2].meta.outer();
        let places = RowPlaces::new(src[4].u32(), rows, self.group);
        let values = ViewMut { meta: more[0].meta, data: &mut *more[0].data };
        write_cells([dst, values], (&places, rows), |t| [src[2].row(t), src[3].row(t)], pool);
    }

    fn gpu(&self, src: &[Meta], dst: &Meta, _caps: &Caps) -> Vec<Kernel> {
        let (tokens, heads) = (src[2].outer(), dst.shape[1]);
        let mut params: Vec<(&str, Param)> = vec![
            ("heads", heads.into()),
            ("cells", dst.outer().into()),
            ("begins", (tokens * (1 + self.group)).into()),
            ("k_stride", src[2].stride.into()),
            ("v_stride", src[3].stride.into()),
        ];
        params.extend(scale_planes(dst, &src[1]));
        vec![Kernel::single(
            "plain",
            Pass {
                shader: Self::NAME,
                flags: cache_flags(dst.dtype, src[1].dtype),
                consts: vec![("WG", 64), ("DIM_K", dst.shape[2] as u32), ("DIM_V", src[1].shape[2] as u32)],
                params,
                binds: vec![
                    ("k", Bind::Src(2)),
                    ("v", Bind::Src(3)),
                    ("places", Bind::Src(4)),
                    ("keys", Bind::Dst),
                    ("values", Bind::Src(1)),
                ],
                workgroups: [2 * heads as u32, tokens as u32, 1],
                ..Pass::default()
            },
        )]
    }

    fn oracle(&self, src: &[Exact]) -> Vec<f64> {
        let mut caches = Vec::new();
        let (words, rows) = (src[4].words(), src[2].meta.outer());
        let places = RowPlaces::new(&words, rows, self.group);
        for (cache, x) in [(&src[0], &src[2]), (&src[1], &src[3])] {
            let mut cells = cache.data.clone();
            let n = cache.meta.inner();
            for (t, cell) in (0..rows).filter_map(|t| Some((t, places.cell(t)?))) {
                cells[cell * n..][..n].copy_from_slice(x.row(t));
            }
            caches.extend(cells);
        }
        caches
    }

    fn cases() -> Vec<Case<Self>> {
        let of = |types: CacheTypes, [cells, tokens, heads, dim, value_dim]: [usize; 5], start, sequences| Case {
            op: KvStore { group: 0 },
            src: vec![
                Input::uniform(Meta::new(types.keys, [cells, heads, dim])),
                Input::uniform(Meta::new(types.values, [cells, heads, value_dim])),
                Input::f32([tokens, heads, dim]).strided(3 * heads * dim, heads * dim),
                Input::f32([tokens, heads, value_dim]),
                Input::places(tokens, sequences, start, cells),
            ],
            nmse: rounding(types.keys).max(rounding(types.values)),
        };
        let mixed = |types, sizes, start| of(types, sizes, start, 1);
        let case = |dtype: DType, sizes, start| mixed(dtype.into(), sizes, start);
        let mut all = vec![
            case(DType::F16, [192, 3, 2, 64, 64], 62),
            case(DType::F32, [64, 1, 3, 64, 32], 32),
            case(DType::F16, [128, 64, 1, 80, 80], 20),
            case(DType::Q8_0, [128, 5, 2, 64, 96], 100),
            case(DType::Q4_0, [64, 20, 3, 96, 32], 0),
            of(DType::F16.into(), [640, 9, 2, 64, 64], 100, 4),
            of(DType::Q8_0.into(), [192, 4, 1, 64, 64], 30, 3),
        ];
        all.extend(CacheTypes::mixed().map(|types| mixed(types, [64, 2, 2, 64, 32], 7)));
        all
    }
}

/// The error of uniform values rounded to a cache's type: a twelfth of a squared step, over a third.
pub(super) fn rounding(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 0.0,
        DType::F16 => 1e-6,
        DType::Q8_0 => 3e-5,
        _ => 8e-3,
    }
}
