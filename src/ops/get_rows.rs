//! Row lookup: y[t] = scale · table[ids[t]] (+ beside[t]): token embeddings, learned positions, the tokens whose logits are wanted.
//! The table may be in any block format; each row is decoded on its own.
//! Shader: shaders/get_rows.wgsl.

use super::work::row_bytes;
use super::{
    Bind, Caps, Case, Exact, Fill, Input, Kernel, Op, Pass, Stack, Threads, WG, WeightLayout, Work, for_chunks, grid,
    weight_shards,
};
use crate::base::{DType, Error, Layout, Meta, Result, View, ViewMut};
use crate::quant;

/// Sources: table `[rows, k]` of any type, ids `[tokens]` `u32`, optionally what is added `[tokens, k]`. Result: `[tokens, k]` `f32`.
/// Ids past the table give zeros (the caller checks token ids; a shard of a table sees ids of the others).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GetRows {
    /// Factor on every value (Gemma's √dim).
    pub scale: f32,
}

impl Op for GetRows {
    const NAME: &str = "get_rows";

    fn weight_layout(&self, src: usize) -> WeightLayout {
        if src == 0 { WeightLayout::Either } else { WeightLayout::Rows }
    }

    fn infer(&self, src: &[Meta]) -> Result<Meta> {
        src[1].want(Self::NAME, DType::U32)?;
        if src[0].shape.dims().len() != 2 {
            return Err(Error::format(format!("get_rows wants a table of two dimensions, got {:?}", src[0])));
        }
        let result = Meta::f32([src[1].outer(), src[0].shape.row()]);
        match src.get(2) {
            Some(beside) if beside.dtype != DType::F32 || beside.shape != result.shape => {
                Err(Error::format(format!("get_rows: {beside:?} does not fit {result:?}")))
            }
            _ => Ok(result),
        }
    }

    fn work(&self, src: &[Meta], dst: &Meta, _depth: usize) -> Work {
        let mut work = Work::of_values(src, dst);
        work.sources[0] = row_bytes(&src[0]) * dst.outer().min(src[0].outer()) as f64;
        work
    }

    fn cpu(&self, src: &[View], mut dst: ViewMut, pool: &dyn Threads) {
        let (table, ids) = (src[0], src[1].u32());
        let k = table.meta.shape.row();
        for_chunks(pool, dst.f32(), k, |t, y| {
            let id = ids[t] as usize;
            match table.layout {
                _ if id >= table.meta.outer() => y.fill(0.0),
                Layout::Rows => quant::decode(table.meta.dtype, table.row_bytes(id), y),
                Layout::Packed => quant::decode_panel_row(table.meta.dtype, table.data, k, id, y),
            }
            if let Some(beside) = src.get(2) {
                return y.iter_mut().zip(beside.row(t)).for_each(|(y, b)| *y = b + self.scale * *y);
            }
            if self.scale != 1.0 {
                y.iter_mut().for_each(|v| *v *= self.scale);
            }
        });
    }

    fn gpu(&self, src: &[Meta], dst: &Meta, caps: &Caps) -> Vec<Kernel> {
        let (rows, n, rows_all) = (dst.outer(), dst.inner(), src[0].outer());
        let mut all = Pass {
            shader: Self::NAME,
            consts: vec![("WG", WG)],
            params: vec![
                ("rows", rows.into()),
                ("n", n.into()),
                ("rows_all", rows_all.into()),
                ("scale", self.scale.into()),
            ],
            binds: vec![("ids", Bind::Src(1)), ("y", Bind::Dst)],
            workgroups: grid(n.div_ceil(8), rows, caps),
            ..Pass::default()
        };
        if let Some(beside) = src.get(2) {
            all.flags.push("ADD");
            all.params.push(("beside_stride", beside.stride.into()));
            all.binds.push(("beside", Bind::Src(2)));
        }
        let pass = |first: usize, rows_here: usize| {
            let mut pass = all.clone();
            pass.params.extend([("first", first.into()), ("rows_here", rows_here.into())]);
            pass
        };
        let shard = |(part, shard): (usize, std::ops::Range<usize>)| {
            let mut pass = Pass { quant: Some(src[0].dtype), ..pass(shard.start, shard.len()) };
            let planes = quant::gpu_planes(src[0].dtype, shard.len(), n).planes;
            pass.params.extend([("planes", planes.into()), ("row_w8", (quant::gpu_padded(n) / 8).into())]);
            pass.binds.extend(["wq", "wd"].map(|name| (name, Bind::Shard { of: Stack::one(0), part })));
            pass
        };
        let passes = weight_shards(&src[0], caps).into_iter().enumerate().map(shard).collect();
        let mut kernels = vec![Kernel { variant: "weights", passes, scratch: Vec::new(), rounding: 0.0 }];
        if src[0].dtype == DType::F32 {
            // Activations: the rows of a batch whose logits are wanted.
            let mut pass = pass(0, rows_all);
            pass.flags.push("PLAIN");
            pass.params.push(("table_stride", src[0].stride.into()));
            pass.binds.push(("table", Bind::Src(0)));
            kernels.push(Kernel::single("plain", pass));
        }
        kernels
    }

    fn oracle(&self, src: &[Exact]) -> Vec<f64> {
        let rows = src[1].data.iter().map(|id| src[0].row(*id as usize));
        let mut y: Vec<f64> = rows.flat_map(|row| row.iter().map(|v| v * self.scale as f64)).collect();
        if let Some(beside) = src.get(2) {
            y.iter_mut().zip(&beside.data).for_each(|(y, b)| *y += b);
        }
        y
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |dtype, rows, k, tokens, scale| Case {
            op: GetRows { scale },
            src: vec![
                Input::uniform(Meta::new(dtype, [rows, k])),
                Input::filled(Meta::new(DType::U32, [tokens]), Fill::Below(rows as u32)),
            ],
            nmse: 1e-13,
        };
        let mut all = vec![case(DType::F32, 7, 33, 5, 1.0), case(DType::F32, 300, 576, 70, 24.0)];
        let mut beside = case(DType::F16, 30, 100, 9, 1.0);
        beside.src.push(Input::f32([9, 100]).strided(132, 32));
        all.push(beside);
        all.extend(quant::SUPPORTED.iter().map(|dtype| case(*dtype, 19, 512, 9, 1.0)));
        all
    }
}
