//! Row lookup: y[t] = scale · table[ids[t]]: token embeddings, learned positions, the tokens whose logits are wanted.
//! The table may be in any block format; each row is decoded on its own.
//! Shader: shaders/get_rows.wgsl.

use super::{Case, Exact, Fill, Input, Op, Pool, for_chunks};
use crate::base::{DType, Error, Meta, Result, View, ViewMut};
use crate::quant;

/// Sources: table `[rows, k]` of any type, ids `[tokens]` `u32`. Result: `[tokens, k]` `f32`.
/// Ids past the table give zeros (the caller checks token ids; a shard of a table sees ids of the others).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GetRows {
    /// Factor on every value (Gemma's √dim).
    pub scale: f32,
}

impl Op for GetRows {
    const NAME: &str = "get_rows";

    fn infer(&self, src: &[Meta]) -> Result<Meta> {
        src[1].want(Self::NAME, DType::U32)?;
        if src[0].shape.dims().len() != 2 {
            return Err(Error::format(format!("get_rows wants a table of two dimensions, got {:?}", src[0])));
        }
        Ok(Meta::f32([src[1].outer(), src[0].shape.row()]))
    }

    fn cpu(&self, src: &[View], mut dst: ViewMut, pool: &dyn Pool) {
        let (table, ids) = (src[0], src[1].u32());
        let k = table.meta.shape.row();
        for_chunks(pool, dst.f32(), k, |t, y| {
            let id = ids[t] as usize;
            if id >= table.meta.outer() {
                return y.fill(0.0);
            }
            quant::decode(table.meta.dtype, table.row_bytes(id), y);
            if self.scale != 1.0 {
                y.iter_mut().for_each(|v| *v *= self.scale);
            }
        });
    }

    fn oracle(&self, src: &[Exact]) -> Vec<f64> {
        let rows = src[1].data.iter().map(|id| src[0].row(*id as usize));
        rows.flat_map(|row| row.iter().map(|v| v * self.scale as f64)).collect()
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
        all.extend(quant::SUPPORTED.iter().map(|dtype| case(*dtype, 19, 512, 9, 1.0)));
        all
    }
}
