//! Floor 3: the operations a model is made of, one file each, with maths, CPU code, GPU kernels, cases and oracle.
//!
//! Conventions: activations are `f32`, `[tokens, …]` with packed inner dimensions (only the token dimension may be
//! strided). Weights are `[rows, k]` in any type. Expert ids travel as whole `f32` numbers beside their weights.

mod case;
mod kernel;
mod pool;
mod product;

pub use case::{Case, Exact, Fill, Input, Random, nmse};
pub use kernel::{Bind, Caps, Kernel, Param, Pass, WG, grid, line, shards, weight_shards};
pub use pool::{Pool, Serial, for_chunks, for_each};

use crate::base::{Meta, Result, View, ViewMut};

/// One operation. Everything about it is in its one file.
pub trait Op: Clone + std::fmt::Debug {
    /// Name of the op, its file, its shader, its trace label, its tests.
    const NAME: &str;

    /// The source that is also the result, where the op updates a buffer (a cache, the current token).
    const IN_PLACE: Option<usize> = None;

    /// The result's metadata, or what is wrong with the sources.
    fn infer(&self, src: &[Meta]) -> Result<Meta>;

    /// Computes on the CPU. Where [`IN_PLACE`](Self::IN_PLACE) names source `i`, its data is in `dst` and `src[i]` is empty.
    fn cpu(&self, src: &[View], dst: ViewMut, pool: &dyn Pool);

    /// The ways of running this on a GPU with `caps`, best first. Never empty.
    fn gpu(&self, src: &[Meta], dst: &Meta, caps: &Caps) -> Vec<Kernel>;

    /// The definition, in f64: the packed result for exact sources.
    fn oracle(&self, src: &[Exact]) -> Vec<f64>;

    /// Shapes and tolerances for tests and benches alike.
    fn cases() -> Vec<Case<Self>>;
}

macro_rules! ops {
    ($($file:ident :: $name:ident),* $(,)?) => {
        $(mod $file;)*
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

            /// See [`Op::cpu`].
            pub fn cpu(&self, src: &[View], dst: ViewMut, pool: &dyn Pool) {
                match self { $(AnyOp::$name(op) => op.cpu(src, dst, pool),)* }
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
    sample::Sample,
    advance::Advance,
}

pub use rope::{Pairs, RopeTable};
pub use router::Gate;
pub use sample::SampleParams;
pub use unary::Act;
