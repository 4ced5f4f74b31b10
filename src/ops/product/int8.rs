//! Products in bytes: a pass normalises the activations and rounds them to 8 bits (shaders/quantize.wgsl), and products are taken four at
//! a time, in the GPU's instructions for that. Where the op allows 8 bits ([`Linear::precision`]) and the device has such instructions.

use super::{Product, VEC_THREADS, Variant};
use crate::base::Meta;
use crate::ops::linear::Then;
use crate::ops::{Bind, Caps, Kernel, Param, Pass, line};
use crate::quant::{self, Precision};
use std::ops::Range;

/// Stands for the scratch buffer with the rounded activations.
const CODES: Bind = Bind::Scratch(usize::MAX - 8);
/// Threads of a workgroup of `quantize`: as many blocks of 32 values as rows of 4096 have.
const QUANTIZE_THREADS: u32 = 128;
/// Rows for one workgroup of `matmul_vec`: what its threads load of one row is enough in flight, and gates come in pairs.
const VEC_ROWS: usize = 2;
/// Rows of a tile, and what its workgroup wants: threads, bytes of memory; and the most values of a row.
const TILE_ROWS: usize = 128;
const TILE_THREADS: u32 = 256;
const TILE_SHARED: u32 = 26 << 10;
const TILE_K: usize = 1 << 16;

const VEC: [Variant; 2] = [bytes("vec_int8_subgroups", &["DOT4", "SUBGROUPS"]), bytes("vec_int8_shared", &["DOT4"])];
const TILE: Variant = bytes("tile_int8", &["DOT4"]);

const fn bytes(name: &'static str, flags: &'static [&'static str]) -> Variant {
    Variant { name, after_norm: name, flags, rounding: quant::EIGHT_BITS }
}

impl<'a> Product<'a> {
    /// Whether activations may be and can be rounded.
    fn in_bytes(&self) -> bool {
        // Values are read four at a time, and rounded 32 at a time; blocks of all quantized types are multiples of that.
        self.op.precision == Precision::Eight
            && self.caps.dot4
            && self.w.dtype.is_quantized()
            && self.x.stride.is_multiple_of(4)
    }

    /// Kernels for a few tokens.
    pub(super) fn int8_vec(&self) -> Vec<Kernel> {
        if !self.in_bytes() {
            return Vec::new();
        }
        let rounded = self.rounded();
        let kernel = |v: &Variant| {
            let passes = rounded.passes(|shard| rounded.int8_vec_pass(v, shard));
            self.with_codes(Kernel { variant: v.name, passes, scratch: Vec::new(), rounding: v.rounding })
        };
        VEC.iter().filter(|v| rounded.possible(v)).map(kernel).collect()
    }

    /// The kernel for many tokens.
    pub(super) fn int8_tile(&self) -> Option<Kernel> {
        let Caps { max_shared, max_invocations, .. } = *self.caps;
        let fits = max_shared >= TILE_SHARED && max_invocations >= TILE_THREADS && self.k() <= TILE_K;
        if !self.in_bytes() || !fits {
            return None;
        }
        let rounded = self.rounded();
        let passes = rounded.passes(|shard| rounded.int8_tile_pass(shard));
        let passes = passes.into_iter().flat_map(|p| rounded.cut(p, TILE_ROWS)).collect();
        let mut kernel = Kernel { variant: TILE.name, passes, scratch: Vec::new(), rounding: TILE.rounding };
        if let Some(ids) = self.ids() {
            kernel = rounded.sorted(kernel, ids, self.int8_tokens());
        }
        Some(rounded.combined(self.with_codes(kernel)))
    }

    /// The same product of activations that a pass has normalised and rounded.
    fn rounded(&self) -> Product<'a> {
        Product { at: self.at.clone(), x_bind: CODES, fused: false, ..*self }
    }

    /// `kernel` behind the pass that rounds its activations.
    fn with_codes(&self, kernel: Kernel) -> Kernel {
        let codes = Bind::Scratch(kernel.scratch.len());
        let mut kernel = kernel;
        kernel.passes.insert(0, self.quantize_pass());
        kernel.scratch.push(5 * 16 * self.blocks());
        kernel.rebind(|bind| if bind == CODES { codes } else { bind })
    }

    /// Blocks of 32 values in all of x. Each takes three vectors, and two for what rounding leaves.
    fn blocks(&self) -> usize {
        self.x.shape.elements() / 32
    }

    fn quantize_pass(&self) -> Pass {
        let rows = self.x.shape.rows();
        let mut pass = Pass {
            shader: "quantize",
            consts: vec![("WG", QUANTIZE_THREADS), ("LIMIT", quant::OUTLIER as u32)],
            params: vec![
                ("rows", rows.into()),
                ("n", self.k().into()),
                ("per_token", (rows / self.x.outer()).into()),
                ("low", (3 * self.blocks()).into()),
                ("x_stride", self.x.stride.into()),
            ],
            binds: vec![("x", self.x_bind), ("y", CODES)],
            workgroups: line(rows, self.caps),
            ..Pass::default()
        };
        if quant::gpu_by_parity(self.w.dtype) {
            pass.flags.push("PARITY");
        }
        if self.caps.subgroups.is_some() {
            pass.flags.push("SUBGROUPS");
        }
        self.norm(&mut pass);
        pass
    }

    /// What both products read of rounded activations, in vectors.
    fn read_codes(&self, pass: &mut Pass) {
        let row = 3 * self.k() / 32;
        for (name, value) in &mut pass.params {
            match *name {
                "x_stride" => *value = (row * (self.x.shape.rows() / self.x.outer())).into(),
                "x_step" if *value != Param::U32(0) => *value = row.into(),
                _ => {}
            }
        }
        pass.params.push(("x_low", (3 * self.blocks()).into()));
        pass.flags.retain(|flag| *flag != "TABLE");
        if quant::gpu_bytes_table(self.w.dtype) {
            pass.flags.push("TABLE");
        }
    }

    fn int8_vec_pass(&self, variant: &Variant, shard: (usize, Range<usize>)) -> Pass {
        let rows = if self.op.ids { self.rows() } else { shard.1.len() };
        let mut pass = self.vec_pass(variant, shard);
        let (columns, column_groups) = self.vec_columns();
        pass.consts = vec![("WG", VEC_THREADS), ("ROWS", VEC_ROWS as u32), ("COLS", columns as u32)];
        let groups = rows.div_ceil(VEC_ROWS) * column_groups;
        match self.op.ids {
            true => pass.workgroups[0] = groups as u32,
            false => pass.workgroups = line(groups, self.caps),
        }
        self.read_codes(&mut pass);
        pass
    }

    fn int8_tile_pass(&self, shard: (usize, Range<usize>)) -> Pass {
        let rows = if self.op.ids { self.rows() } else { shard.1.len() };
        let mut pass = Pass { shader: "matmul_tile_int8", ..self.pass(&TILE, shard) };
        let tokens = self.int8_tokens();
        pass.consts = vec![("WG", TILE_THREADS), ("TOKENS", tokens as u32)];
        let columns = self.columns(&mut pass, tokens);
        pass.workgroups = [rows.div_ceil(TILE_ROWS) as u32, columns as u32, 1];
        self.epilogue_of_tiles(&mut pass);
        self.read_codes(&mut pass);
        pass
    }

    /// Tokens of a tile: as many as share their weights.
    fn int8_tokens(&self) -> usize {
        let share = match self.ids() {
            None => self.x.outer(),
            Some(ids) => ids.shape.elements() / self.w.outer(),
        };
        match share {
            0..=32 => 32,
            33..=64 => 64,
            _ => 128,
        }
    }

    /// Experts' sums behind the products, where the op has them.
    fn combined(&self, kernel: Kernel) -> Kernel {
        match (self.ids(), self.op.then) {
            (Some(ids), Then::Combine { .. }) => {
                self.combine(kernel, Meta::f32([ids.outer(), ids.shape[1], self.rows()]))
            }
            _ => kernel,
        }
    }
}
