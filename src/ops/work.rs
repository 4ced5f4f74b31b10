//! What an op moves and computes at the least, counted from shapes: one count for plans, profiles, submissions and benches.

use crate::base::{DType, Meta};

/// Operations that an element-wise op takes for each value, roughly.
const PER_VALUE: f64 = 8.0;

/// The work of one op.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Work {
    /// Bytes moved of each source: read or, of those that are updated in place, written. Of experts as many as random choices are
    /// expected to hit.
    pub sources: Vec<f64>,
    /// Bytes written of the result, if it is no source.
    pub result: f64,
    /// What products multiply by (weights, keys, values), and their operations: a multiplication and an addition are two.
    pub products: Option<(DType, f64)>,
    /// Other operations, roughly.
    pub other: f64,
}

impl Work {
    /// Each source read once, each value of the result written once after a few operations.
    pub fn of_values(src: &[Meta], dst: &Meta) -> Work {
        Work {
            sources: src.iter().map(|m| m.span_bytes() as f64).collect(),
            result: dst.span_bytes() as f64,
            products: None,
            other: PER_VALUE * dst.shape.elements() as f64,
        }
    }

    /// The same with products of `operations` with values of type `dtype` in place of the few operations.
    pub fn of_products(src: &[Meta], dst: &Meta, dtype: DType, operations: f64) -> Work {
        Work { products: Some((dtype, operations)), other: 0.0, ..Work::of_values(src, dst) }
    }

    /// All bytes.
    pub fn bytes(&self) -> f64 {
        self.sources.iter().sum::<f64>() + self.result
    }

    /// All operations.
    pub fn operations(&self) -> f64 {
        self.other + self.products.map_or(0.0, |(_, n)| n)
    }
}

/// Bytes of one row, along the outermost dimension.
pub(super) fn row_bytes(meta: &Meta) -> f64 {
    meta.span_bytes() as f64 / meta.outer() as f64
}

/// The part of `experts` `[experts, …]` that random `ids` `[tokens, used]` are expected to hit.
pub(super) fn chosen(experts: &Meta, ids: &Meta) -> f64 {
    let (experts, tokens, used) = (experts.outer() as f64, ids.outer() as f64, ids.inner() as f64);
    1.0 - (1.0 - used / experts).max(0.0).powf(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::AnyOp;

    #[test]
    fn ops_move_no_more_than_there_is_and_a_full_cache_is_the_most() {
        for case in AnyOp::cases() {
            let src: Vec<Meta> = case.src.iter().map(|input| input.meta).collect();
            let dst = case.op.infer(&src).unwrap();
            let [empty, full] = [0, usize::MAX].map(|depth| case.op.work(&src, &dst, depth));
            assert_eq!(empty.sources.len(), src.len(), "{:?}", case.op);
            for (i, (bytes, meta)) in full.sources.iter().zip(&src).enumerate() {
                // Of a table or a cache, one row for each token.
                let most = (meta.span_bytes() as f64).max(row_bytes(meta) * dst.outer() as f64);
                assert!((0.0..=most).contains(bytes), "{:?}: {bytes} bytes of source {i}, {meta:?}", case.op);
                assert!(empty.sources[i] <= *bytes, "{:?}: source {i}", case.op);
            }
            assert!(full.operations() > 0.0 && empty.operations() <= full.operations(), "{:?}", case.op);
        }
    }
}
