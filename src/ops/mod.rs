//! Floor 3: the operations a model is made of, one file each, with maths, CPU code, GPU kernels, cases and oracle.
//!
//! Conventions: activations are `f32`, `[tokens, …]` with packed inner dimensions (only the token dimension may be
//! strided). Weights are `[rows, k]` in any type. Expert ids travel as whole `f32` numbers beside their weights.

mod add;
mod attention;
mod attention_cells;
mod attention_cpu;
mod attention_few;
mod attention_gpu;
mod attention_tiles;
mod case;
mod combine;
mod get_rows;
mod glu;
mod kernel;
mod kv_store;
mod layer_norm;
mod linear;
mod linear_cpu;
mod matmul;
mod matmul_id;
mod mul;
mod norm_add;
mod places;
mod product;
mod rms_norm;
mod rope;
mod rope_store;
mod router;
mod sample;
mod scale_id;
mod unary;
mod work;

pub use crate::base::{Serial, Threads, for_chunks, for_each, for_ranges, share_out_alike};
pub use case::{Case, Exact, Fill, Input, Random, Rows, nmse};
pub use kernel::{Bind, Caps, Kernel, Param, Pass, Stack, WG, grid, line, shards, weight_shards};
pub use places::{NO_ROW, PAGE_CELLS, lay_tables, places_len, places_of_one};
pub use work::Work;

use crate::base::{Meta, Result, View, ViewMut};
use std::ops::Range;

/// How an op's CPU code takes the rows of a source: see [`crate::base::Layout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightLayout {
    /// As they lie in a file.
    Rows,
    /// Interleaved if they are so anyway, for another op; else as they lie.
    Either,
    /// Interleaved if the type can be; as they lie where it is done on the way (tests, `doctor`).
    Packed,
}

/// One operation. Everything about it is in its one file.
pub trait Op: Clone + std::fmt::Debug {
    /// Name of the op, its file, its shader, its trace label, its tests.
    const NAME: &str;

    /// The source that is also the result, where the op updates a buffer (a cache, the current token).
    const IN_PLACE: Option<usize> = None;

    /// The sources that the op updates in place beside its result. They share no buffer with anything else it uses.
    fn updates(&self) -> Range<usize> {
        0..0
    }

    /// How [`Op::cpu`] takes source `src`.
    fn weight_layout(&self, _src: usize) -> WeightLayout {
        WeightLayout::Rows
    }

    /// The sources that lie in a cache, where quantized types have a layout of their own on GPUs.
    fn caches(&self) -> Range<usize> {
        0..0
    }

    /// The source with the ids of experts, if weights are those of experts that each token chooses.
    fn expert_ids(&self) -> Option<usize> {
        None
    }

    /// The result's metadata, or what is wrong with the sources.
    fn infer(&self, src: &[Meta]) -> Result<Meta>;

    /// What it moves and computes with `depth` tokens in the cache before those of the batch; of a full cache if there are more than fit.
    fn work(&self, src: &[Meta], dst: &Meta, depth: usize) -> Work;

    /// Computes on the CPU. Where [`IN_PLACE`](Self::IN_PLACE) names source `i`, its data is in `dst` and `src[i]` is empty.
    fn cpu(&self, src: &[View], dst: ViewMut, pool: &dyn Threads);

    /// As [`cpu`](Self::cpu) for an op that [`updates`](Self::updates) sources: their data is in `more`, and empty in `src`.
    fn cpu_updating(&self, src: &[View], dst: ViewMut, more: &mut [ViewMut], pool: &dyn Threads) {
        debug_assert!(more.is_empty(), "{} updates nothing else", Self::NAME);
        self.cpu(src, dst, pool);
    }

    /// The ways of running this on a GPU with `caps`, best first. Empty if the device's limits allow none.
    fn gpu(&self, src: &[Meta], dst: &Meta, caps: &Caps) -> Vec<Kernel>;

    /// The class of shapes whose kernels are measured together, if it is worth measuring: `q4_0 4096x2048 1 rms store`.
    fn tuning_class(&self, _src: &[Meta]) -> Option<String> {
        None
    }

    /// Sizes of the scratch buffers that batches of any number of tokens need at the most, `src` being those of the largest. Only for ops that
    /// may need more for fewer tokens.
    fn most_scratch(&self, _src: &[Meta]) -> Vec<usize> {
        Vec::new()
    }

    /// The definition, in f64: the packed result for exact sources, then what [`updates`](Self::updates) leaves in its sources.
    fn oracle(&self, src: &[Exact]) -> Vec<f64>;

    /// Shapes and tolerances for tests and benches alike.
    fn cases() -> Vec<Case<Self>>;
}

macro_rules! ops {
    ($($file:ident :: $name:ident),* $(,)?) => {
        $(pub use $file::$name;)*

        /// Any operation: what a graph's nodes hold.
        #[derive(Debug, Clone)]
        #[allow(missing_docs)]
        pub enum AnyOp { $($name($name),)* }

        $(impl From<$name> for AnyOp {
            fn from(op: $name) -> Self { AnyOp::$name(op) }
        })*

        impl AnyOp {
            /// Names of all operations.
            pub const NAMES: &[&str] = &[$($name::NAME,)*];

            /// See [`Op::NAME`].
            pub fn name(&self) -> &'static str {
                match self { $(AnyOp::$name(_) => $name::NAME,)* }
            }

            /// See [`Op::IN_PLACE`].
            pub fn in_place(&self) -> Option<usize> {
                match self { $(AnyOp::$name(_) => $name::IN_PLACE,)* }
            }

            /// See [`Op::infer`].
            pub fn infer(&self, src: &[Meta]) -> Result<Meta> {
                match self { $(AnyOp::$name(op) => op.infer(src),)* }
            }

            /// See [`Op::updates`].
            pub fn updates(&self) -> Range<usize> {
                match self { $(AnyOp::$name(op) => op.updates(),)* }
            }

            /// See [`Op::weight_layout`].
            pub fn weight_layout(&self, src: usize) -> WeightLayout {
                match self { $(AnyOp::$name(op) => op.weight_layout(src),)* }
            }

            /// See [`Op::caches`].
            pub fn caches(&self) -> Range<usize> {
                match self { $(AnyOp::$name(op) => op.caches(),)* }
            }

            /// See [`Op::expert_ids`].
            pub fn expert_ids(&self) -> Option<usize> {
                match self { $(AnyOp::$name(op) => op.expert_ids(),)* }
            }

            /// See [`Op::work`].
            pub fn work(&self, src: &[Meta], dst: &Meta, depth: usize) -> Work {
                match self { $(AnyOp::$name(op) => op.work(src, dst, depth),)* }
            }

            /// See [`Op::tuning_class`].
            pub fn tuning_class(&self, src: &[Meta]) -> Option<String> {
                match self { $(AnyOp::$name(op) => op.tuning_class(src),)* }
            }

            /// See [`Op::most_scratch`].
            pub fn most_scratch(&self, src: &[Meta]) -> Vec<usize> {
                match self { $(AnyOp::$name(op) => op.most_scratch(src),)* }
            }

            /// The sources that are written: the one that is the result too, and those that are updated beside it.
            pub fn written(&self) -> impl Iterator<Item = usize> + use<> {
                self.in_place().into_iter().chain(self.updates())
            }

            /// See [`Op::cpu_updating`].
            pub fn cpu(&self, src: &[View], dst: ViewMut, more: &mut [ViewMut], pool: &dyn Threads) {
                match self { $(AnyOp::$name(op) => op.cpu_updating(src, dst, more, pool),)* }
            }

            /// See [`Op::gpu`].
            pub fn gpu(&self, src: &[Meta], dst: &Meta, caps: &Caps) -> Vec<Kernel> {
                match self { $(AnyOp::$name(op) => op.gpu(src, dst, caps),)* }
            }

            /// See [`Op::oracle`].
            pub fn oracle(&self, src: &[Exact]) -> Vec<f64> {
                match self { $(AnyOp::$name(op) => op.oracle(src),)* }
            }

            /// The cases of all operations.
            pub fn cases() -> Vec<Case<AnyOp>> {
                let mut all = Vec::new();
                $(all.extend($name::cases().into_iter().map(|c| Case { op: c.op.into(), src: c.src, nmse: c.nmse }));)*
                all
            }
        }
    };
}

ops! {
    get_rows::GetRows,
    matmul::MatMul,
    matmul_id::MatMulId,
    linear::Linear,
    rms_norm::RmsNorm,
    layer_norm::LayerNorm,
    rope::Rope,
    kv_store::KvStore,
    attention::Attention,
    glu::Glu,
    unary::Unary,
    add::Add,
    mul::Mul,
    router::Router,
    combine::Combine,
    scale_id::ScaleId,
    sample::Sample,
    rope_store::RopeStore,
    norm_add::NormAdd,
}

pub use kv_store::{CACHE_TYPES, CacheTypes};
pub use linear::{PreNorm, Then};
pub use rope::{Pairs, RopeTable};
pub use rope_store::HeadNorm;
pub use router::Gate;
pub use sample::{DrawNumber, SampleParams};
pub use unary::Act;
