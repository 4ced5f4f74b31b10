//! Rotary position embedding: each pair of channels is turned by an angle that grows with the token's position.
//! y0 = x0·cos − x1·sin, y1 = x0·sin + x1·cos, times `mscale`; angle of pair j at position p = p · turns[j], in turns of 2⁻³².
//!
//! The frequencies come as a table of fixed-point fractions of a turn, so that `p · turns[j]` wraps around exactly in 32-bit
//! integers: GPUs' sin and cos are only good near zero, and f32 angles lose a digit at long contexts.
//! Scaling (linear, YaRN, factors) goes into the table once, on the host.
//! Shader: shaders/rope.wgsl. Source: arXiv 2104.09864 (RoPE), 2309.00071 (YaRN).

use super::{Bind, Caps, Case, Exact, Fill, Input, Kernel, Op, Pass, Threads, WG, Work, for_chunks, grid};
use crate::base::{DType, Error, Meta, Result, View, ViewMut};
use std::cell::RefCell;
use std::f64::consts::TAU;

/// Sources: x `[tokens, heads, dim]` (or `[tokens, dim]`), positions `[tokens]` `u32`, table `[dims / 2]` `u32` from [`RopeTable`].
/// Result: as x, packed; channels from `2 · table` on are copied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    /// Which channels pair up.
    pub pairs: Pairs,
    /// Factor on the turned channels (YaRN's attention factor).
    pub mscale: f32,
}

/// Which channels make a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairs {
    /// 2j and 2j + 1: "norm" in GGUF's world.
    Interleaved,
    /// j and j + dims/2: "neox".
    NeoX,
}

/// The host-side parameters of a rotary embedding, as GGUF metadata gives them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeTable {
    /// Turned channels (`rope.dimension_count`).
    pub dims: usize,
    /// `rope.freq_base`
    pub base: f64,
    /// 1 / `rope.scaling.factor`
    pub freq_scale: f64,
    /// YaRN's mix: 0 off, 1 on.
    pub ext_factor: f64,
    /// Factor on cos and sin.
    pub attn_factor: f64,
    /// YaRN: rotations above which a channel is not scaled.
    pub beta_fast: f64,
    /// YaRN: rotations below which a channel is scaled fully.
    pub beta_slow: f64,
    /// Context length of the original training, in tokens.
    pub original_context: usize,
}

impl RopeTable {
    /// Plain rotary embedding over `dims` channels.
    pub fn plain(dims: usize, base: f64) -> Self {
        RopeTable {
            dims,
            base,
            freq_scale: 1.0,
            ext_factor: 0.0,
            attn_factor: 1.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            original_context: 0,
        }
    }

    /// Turns per position for each pair, as fractions of 2³², and `mscale`. `factors` divide the frequencies.
    pub fn turns(&self, factors: Option<&[f32]>) -> (Vec<u32>, f32) {
        let (low, high) = self.corrected_pairs();
        let turn = |j: usize| {
            let freq = self.base.powf(-2.0 * j as f64 / self.dims as f64) / factors.map_or(1.0, |f| f[j] as f64);
            let ramp = 1.0 - ((j as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
            let mix = ramp * self.ext_factor;
            let scaled = freq * self.freq_scale * (1.0 - mix) + freq * mix;
            // Wraps for frequencies of a turn and more; `as` on the reduced value is exact to half a unit.
            ((scaled / TAU).rem_euclid(1.0) * 4294967296.0).round() as u64 as u32
        };
        let stretch = if self.ext_factor != 0.0 { 1.0 + 0.1 * (1.0 / self.freq_scale).ln() } else { 1.0 };
        ((0..self.dims / 2).map(turn).collect(), (self.attn_factor * stretch) as f32)
    }

    /// The range of pairs over which YaRN goes from unscaled to scaled.
    fn corrected_pairs(&self) -> (f64, f64) {
        let pair = |rotations: f64| {
            let span = self.original_context as f64 / (rotations * TAU);
            self.dims as f64 * span.ln() / (2.0 * self.base.ln())
        };
        if self.ext_factor == 0.0 {
            return (0.0, 1.0);
        }
        (pair(self.beta_fast).floor().max(0.0), pair(self.beta_slow).ceil().min(self.dims as f64 - 1.0))
    }
}

/// Of each pair the sine and the cosine of its angle, times `mscale`.
pub(super) struct Angles<'a> {
    sin: &'a [f32],
    cos: &'a [f32],
}

thread_local! {
    // Kept, so that a decoded token allocates nothing once warm.
    static ANGLES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl Rope {
    /// Calls `f` with the angles of position `position`.
    pub(super) fn with_angles(&self, position: u32, turns: &[u32], f: impl FnOnce(&Angles)) {
        ANGLES.with_borrow_mut(|angles| {
            angles.resize(2 * turns.len(), 0.0);
            let (sin, cos) = angles.split_at_mut(turns.len());
            for ((sin, cos), turn) in sin.iter_mut().zip(&mut *cos).zip(turns) {
                // Signed: the angle lies in −π … π.
                let angle = position.wrapping_mul(*turn) as i32 as f64 * (TAU / 4294967296.0);
                (*sin, *cos) = ((angle as f32).sin() * self.mscale, (angle as f32).cos() * self.mscale);
            }
            f(&Angles { sin, cos });
        });
    }

    /// Turns the heads of one token, of `dim` channels each, in place.
    pub(super) fn rotate(&self, angles: &Angles, dim: usize, y: &mut [f32]) {
        let pairs = angles.sin.len();
        let turned = |x0: &mut f32, x1: &mut f32, sin: f32, cos: f32| {
            (*x0, *x1) = (*x0 * cos - *x1 * sin, *x0 * sin + *x1 * cos);
        };
        for head in y.chunks_mut(dim) {
            let (turns, head) = (angles.sin.iter().zip(angles.cos), &mut head[..2 * pairs]);
            match self.pairs {
                Pairs::Interleaved => {
                    head.as_chunks_mut()
                        .0
                        .iter_mut()
                        .zip(turns)
                        .for_each(|([x0, x1], (sin, cos))| turned(x0, x1, *sin, *cos));
                }
                Pairs::NeoX => {
                    let (a, b) = head.split_at_mut(pairs);
                    a.iter_mut().zip(b).zip(turns).for_each(|((x0, x1), (sin, cos))| turned(x0, x1, *sin, *cos));
                }
            }
        }
    }
}

impl Pairs {
    fn channels(self, j: usize, pairs: usize) -> (usize, usize) {
        match self {
            Pairs::Interleaved => (2 * j, 2 * j + 1),
            Pairs::NeoX => (j, j + pairs),
        }
    }
}

impl Op for Rope {
    const NAME: &str = "rope";

    fn infer(&self, src: &[Meta]) -> Result<Meta> {
        src[0].want(Self::NAME, DType::F32)?;
        src[1].want(Self::NAME, DType::U32)?;
        src[2].want(Self::NAME, DType::U32)?;
        if src[1].outer() != src[0].outer() || 2 * src[2].outer() > src[0].shape.row() {
            return Err(Error::format(format!("rope: positions {:?}, table {:?} for {:?}", src[1], src[2], src[0])));
        }
        Ok(Meta::f32(src[0].shape))
    }

    fn work(&self, src: &[Meta], dst: &Meta, _depth: usize) -> Work {
        Work::of_values(src, dst)
    }

    fn cpu(&self, src: &[View], mut dst: ViewMut, pool: &dyn Threads) {
        let (pos, turns) = (src[1].u32(), src[2].u32());
        let (dim, inner) = (dst.meta.shape.row(), dst.meta.inner());
        for_chunks(pool, dst.f32(), inner, |t, y| {
            y.copy_from_slice(src[0].row(t));
            self.with_angles(pos[t], turns, |angles| self.rotate(angles, dim, y));
        });
    }

    fn gpu(&self, src: &[Meta], dst: &Meta, caps: &Caps) -> Vec<Kernel> {
        let (rows, n, dim, pairs) = (dst.outer(), dst.inner(), dst.shape.row(), src[2].outer());
        let per_head = dim - pairs;
        vec![Kernel::single(
            "plain",
            Pass {
                shader: Self::NAME,
                flags: if self.pairs == Pairs::Interleaved { vec!["ADJACENT"] } else { Vec::new() },
                consts: vec![("WG", WG)],
                params: vec![
                    ("rows", rows.into()),
                    ("n", n.into()),
                    ("dim", dim.into()),
                    ("pairs", pairs.into()),
                    ("per_head", per_head.into()),
                    ("x_stride", src[0].stride.into()),
                    ("mscale", self.mscale.into()),
                ],
                binds: vec![("x", Bind::Src(0)), ("pos", Bind::Src(1)), ("turns", Bind::Src(2)), ("y", Bind::Dst)],
                workgroups: grid(n / dim * per_head, rows, caps),
                ..Pass::default()
            },
        )]
    }

    fn oracle(&self, src: &[Exact]) -> Vec<f64> {
        let mut y = src[0].data.clone();
        let (dim, inner) = (src[0].meta.shape.row(), src[0].meta.inner());
        let turns = &src[2].data;
        for (t, row) in y.chunks_mut(inner).enumerate() {
            for head in row.chunks_mut(dim) {
                for (j, turn) in turns.iter().enumerate() {
                    let angle = (src[1].data[t] * turn).rem_euclid(4294967296.0) / 4294967296.0 * TAU;
                    let (a, b) = self.pairs.channels(j, turns.len());
                    let (x0, x1) = (head[a], head[b]);
                    head[a] = (x0 * angle.cos() - x1 * angle.sin()) * self.mscale as f64;
                    head[b] = (x0 * angle.sin() + x1 * angle.cos()) * self.mscale as f64;
                }
            }
        }
        y
    }

    fn cases() -> Vec<Case<Self>> {
        let table = |pairs: usize| Input::filled(Meta::new(DType::U32, [pairs]), Fill::Bits);
        let pos = |n: usize, start| Input::filled(Meta::new(DType::U32, [n]), Fill::Count(start));
        let case = |pairs, mscale, src| Case { op: Rope { pairs, mscale }, src, nmse: 1e-9 };
        let mut all = Vec::new();
        for pairs in [Pairs::Interleaved, Pairs::NeoX] {
            all.push(case(pairs, 1.0, vec![Input::f32([3, 4, 64]), pos(3, 0), table(32)]));
            all.push(case(pairs, 1.1, vec![Input::f32([5, 2, 80]), pos(5, 131000), table(16)]));
            all.push(case(pairs, 1.0, vec![Input::f32([4, 2, 64]).strided(384, 256), pos(4, 9), table(32)]));
            all.push(case(pairs, 1.0, vec![Input::f32([1, 9, 64]), pos(1, 4095), table(32)]));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_point_turns_follow_the_textbook() {
        let (turns, mscale) = RopeTable::plain(64, 10000.0).turns(None);
        assert_eq!(mscale, 1.0);
        for (j, turn) in turns.iter().enumerate() {
            let want = 10000f64.powf(-2.0 * j as f64 / 64.0) / TAU * 4294967296.0;
            assert!((*turn as f64 - want).abs() <= 0.5, "pair {j}: {turn} for {want}");
        }
    }

    #[test]
    fn yarn_leaves_fast_channels_and_scales_slow_ones() {
        let yarn =
            RopeTable { freq_scale: 0.25, ext_factor: 1.0, original_context: 4096, ..RopeTable::plain(128, 10000.0) };
        let (scaled, mscale) = yarn.turns(None);
        let (plain, _) = RopeTable::plain(128, 10000.0).turns(None);
        assert_eq!(scaled[0], plain[0]);
        assert!((scaled[63] as f64 / plain[63] as f64 - 0.25).abs() < 1e-4);
        assert!((mscale as f64 - (1.0 + 0.1 * 4f64.ln())).abs() < 1e-6);
    }
}
