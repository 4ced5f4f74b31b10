//! What an op asks of a GPU, as plain data: shaders, constants, bindings by name, workgroup counts.
//!
//! Nothing here knows wgpu. The `gpu` room turns a [`Kernel`] into pipelines and bind groups; `tests/shaders.rs`
//! expands and validates every kernel without a device.

use crate::base::{DType, Meta};

/// What a device can do, as far as kernels choose by it.
#[derive(Debug, Clone, PartialEq)]
pub struct Caps {
    /// Smallest and largest subgroup size, where subgroup operations are there.
    pub subgroups: Option<(u32, u32)>,
    /// The size that the device takes if it has the choice. Found out when the device is opened.
    pub chosen_subgroup: Option<u32>,
    /// `f16` arithmetic and storage (`enable f16`).
    pub f16: bool,
    /// `unpack2x16float` keeps subnormals. Found out when the device is opened.
    pub halves: bool,
    /// Rows and columns of the matrices that subgroups multiply, f16 factors and f32 sums, where they do.
    pub coop: Option<u32>,
    /// `dot4I8Packed` is known, and may be an instruction of the hardware.
    pub dot4: bool,
    /// Bytes one storage binding may span.
    pub max_binding: u64,
    /// Invocations per workgroup.
    pub max_invocations: u32,
    /// Bytes of workgroup memory.
    pub max_shared: u32,
    /// Workgroups per dimension.
    pub max_workgroups: u32,
    /// Multiplications and additions per second that slow devices of this kind reach; of bytes they move a tenth as many. Long
    /// work is cut by it.
    pub speed: f64,
}

impl Caps {
    /// The limits every WebGPU device has, and no optional feature.
    pub const BASELINE: Caps = Caps {
        subgroups: None,
        chosen_subgroup: None,
        f16: false,
        halves: false,
        coop: None,
        dot4: false,
        max_binding: 128 << 20,
        max_invocations: 256,
        max_shared: 16 << 10,
        max_workgroups: 65535,
        speed: Caps::SLOW,
    };

    /// The size of all subgroups, if it is known.
    pub fn subgroup_size(&self) -> Option<u32> {
        let (smallest, largest) = self.subgroups?;
        if smallest == largest { Some(smallest) } else { self.chosen_subgroup }
    }

    /// The speed of an integrated GPU with two channels of DDR4.
    pub const SLOW: f64 = 3e11;
    /// The speed of a small graphics card.
    pub const CARD: f64 = 1e12;
    /// Operations that take as long as moving a byte.
    pub const PER_BYTE: f64 = 10.0;
    /// Seconds that one dispatch may take at `speed`: a little less than a submission may.
    const DISPATCH: f64 = 0.09;
}

/// One way of running an op: passes in order, with the scratch buffers they share.
///
/// An op lists its kernels best first, and tests run all of them.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Names the variant in traces, tests and the doctor's table: `subgroup`, `tile`.
    pub variant: &'static str,
    /// The dispatches, each waiting for the one before.
    pub passes: Vec<Pass>,
    /// Sizes of scratch buffers in bytes.
    pub scratch: Vec<usize>,
    /// What its arithmetic may add to the error of f32's, as normalised mean squared error.
    pub rounding: f64,
}

impl Kernel {
    /// A kernel of one dispatch.
    pub fn single(variant: &'static str, pass: Pass) -> Kernel {
        Kernel { variant, passes: vec![pass], scratch: Vec::new(), rounding: 0.0 }
    }

    /// The passes with what they bind put elsewhere, to make them part of another op's kernel.
    pub fn rebind(mut self, to: impl Fn(Bind) -> Bind) -> Kernel {
        self.passes.iter_mut().flat_map(|p| &mut p.binds).for_each(|(_, bind)| *bind = to(*bind));
        self
    }

    /// The same pass with subgroup operations, where there are any, then with workgroup memory alone.
    pub fn reductions(pass: Pass, caps: &Caps) -> Vec<Kernel> {
        let mut all = Vec::new();
        if caps.subgroups.is_some() {
            let mut flags = pass.flags.clone();
            flags.push("SUBGROUPS");
            all.push(Kernel::single("subgroups", Pass { flags, ..pass.clone() }));
        }
        all.push(Kernel::single("shared", pass));
        all
    }
}

/// Threads of a workgroup in kernels that give each value a thread.
pub const WG: u32 = 256;

/// Workgroups of [`WG`] threads for `n` threads in each of `rows` rows. The shader finds its row as
/// `id.y + id.z · groups.y` and compares it with `rows`.
pub fn grid(n: usize, rows: usize, caps: &Caps) -> [u32; 3] {
    let [y, z, _] = line(rows, caps);
    [n.div_ceil(WG as usize) as u32, y, z]
}

/// One workgroup for each of `rows` rows: row `group.x + group.y · groups.x`, to be compared with `rows`.
pub fn line(rows: usize, caps: &Caps) -> [u32; 3] {
    let max = caps.max_workgroups as usize;
    [rows.min(max) as u32, rows.div_ceil(max) as u32, 1]
}

/// One dispatch.
#[derive(Debug, Clone, Default)]
pub struct Pass {
    /// File under `shaders/`, without `.wgsl`.
    pub shader: &'static str,
    /// The weight format whose file `#import quant` stands for.
    pub quant: Option<DType>,
    /// Names that `#if` finds true.
    pub flags: Vec<&'static str>,
    /// Constants written into the shader's header as `const NAME: u32 = value;`.
    pub consts: Vec<(&'static str, u32)>,
    /// Members of the shader's `params` uniform, by name. `<binding>_offset` members are filled in by the runner
    /// with the tensor's first element.
    pub params: Vec<(&'static str, Param)>,
    /// Storage bindings, by the name of the shader's variable.
    pub binds: Vec<(&'static str, Bind)>,
    /// Number of workgroups.
    pub workgroups: [u32; 3],
}

impl Pass {
    /// The pass in pieces that take no longer than a dispatch may. A workgroup's x stands for `rows` rows, counted from
    /// `params.row_base`, and all workgroups of one x do `operations`.
    pub fn pieces(self, rows: usize, operations: f64, caps: &Caps) -> Vec<Pass> {
        let (all, most) = (self.workgroups[0], ((Caps::DISPATCH * caps.speed / operations) as u32).max(1));
        let piece = |first: u32| {
            let mut pass = self.clone();
            pass.params.push(("row_base", (first as usize * rows).into()));
            pass.workgroups[0] = most.min(all - first);
            pass
        };
        (0..all).step_by(most as usize).map(piece).collect()
    }
}

/// A value in the `params` uniform.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Param {
    /// `u32`
    U32(u32),
    /// `f32`
    F32(f32),
    /// `vec4<u32>`
    Vec4([u32; 4]),
}

impl From<usize> for Param {
    fn from(v: usize) -> Self {
        Param::U32(u32::try_from(v).expect("sizes in kernels fit 32 bits"))
    }
}

impl From<f32> for Param {
    fn from(v: f32) -> Self {
        Param::F32(v)
    }
}

impl From<[u32; 4]> for Param {
    fn from(v: [u32; 4]) -> Self {
        Param::Vec4(v)
    }
}

/// What a binding points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bind {
    /// Source tensor `i`.
    Src(usize),
    /// Part `part` of the weights `of`, cut by [`weight_shards`].
    Shard {
        /// Which sources.
        of: Stack,
        /// Which of their shards.
        part: usize,
    },
    /// Vectors of `f32` in one buffer: biases of stacked weights.
    Stack(Stack),
    /// The result.
    Dst,
    /// Scratch buffer `i` of the kernel.
    Scratch(usize),
}

/// Weights that are put into one buffer, so that one dispatch multiplies by all of them: sources `first .. first + count`, of
/// one type and row length. They are stacked when they are uploaded, and are on the device only once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stack {
    /// The first source.
    pub first: usize,
    /// How many there are.
    pub count: usize,
    /// Row by row in turn (a gate's row, then the same of `up`), instead of one after the other.
    pub interleaved: bool,
}

impl Stack {
    /// A weight on its own.
    pub fn one(src: usize) -> Stack {
        Stack { first: src, count: 1, interleaved: false }
    }

    /// The sources' indices.
    pub fn sources(&self) -> std::ops::Range<usize> {
        self.first..self.first + self.count
    }

    /// The stack as one weight, `parts` being what [`sources`](Self::sources) are: `[Σ rows, k]`, or `[experts, Σ rows, k]`.
    pub fn meta(parts: &[Meta]) -> Meta {
        let dims = parts[0].shape.dims();
        let at = dims.len().saturating_sub(2);
        let mut all = dims.to_vec();
        all[at] = parts.iter().map(|p| p.shape[at]).sum();
        Meta::new(parts[0].dtype, crate::base::Shape::new(&all))
    }
}

/// Cuts a weight into ranges of whole outermost-but-one rows (`[rows, k]`, `[experts, rows, k]` counted flat) so that each
/// fits one binding. Uploading and dispatching both call this, so they agree.
///
/// `per_row` is the size of one row in the GPU layout, in bytes; ranges are multiples of `granule` rows.
pub fn shards(rows: usize, per_row: usize, granule: usize, caps: &Caps) -> Vec<std::ops::Range<usize>> {
    let fit = (caps.max_binding as usize / per_row.max(1)) / granule * granule;
    let fit = fit.max(granule);
    (0..rows.max(1)).step_by(fit).map(|start| start..(start + fit).min(rows)).collect()
}

/// The shards of weight `meta` (`[rows, k]` or `[experts, rows, k]`); expert tensors are cut between experts.
pub fn weight_shards(meta: &Meta, caps: &Caps) -> Vec<std::ops::Range<usize>> {
    let dims = meta.shape.dims();
    // Rows of a gate and of `up` in turn stay together.
    let granule = if dims.len() == 3 { dims[1] } else { 2 };
    let k = meta.shape.row();
    // GPU layouts pad plain rows to 32 weights and never grow a block by more than an eighth.
    let padded = k.next_multiple_of(32);
    let per_row = padded / meta.dtype.block().max(1) * meta.dtype.block_bytes();
    shards(meta.shape.rows(), per_row + per_row / 8, granule, caps)
}
