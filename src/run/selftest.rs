//! Every kernel against its definition, on the device at hand: what `doctor` shows and the tests demand.
//!
//! A [`Trial`] is an op's case with made-up inputs and the result that its f64 oracle gives for them.

use crate::base::{Error, ErrorKind, Meta, Result, View, ViewMut};
use crate::gpu::{Device, Memory, Program, Source, Weights};
use crate::graph::{Cache, CachePart, Graph, Place, Plan, Tensor};
use crate::ops::{AnyOp, Caps, Case, Exact, MatMul, Pool, nmse};
use crate::{base::DType, ops};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A case with its inputs and the exact result.
pub struct Trial {
    case: Case<AnyOp>,
    inputs: Arc<Inputs>,
    dst: Meta,
    want: Vec<f64>,
}

/// The bytes of each source.
struct Inputs(Vec<Vec<u8>>);

impl Inputs {
    fn new(case: &Case<AnyOp>, seed: u64) -> Arc<Inputs> {
        Arc::new(Inputs(case.src.iter().zip(seed..).map(|(input, seed)| input.bytes(seed)).collect()))
    }
}

impl Source for Inputs {
    fn read(&self, name: &str, at: u64, out: &mut [u8]) -> Result<()> {
        let bytes = name.strip_prefix("src").and_then(|i| self.0.get(i.parse::<usize>().ok()?));
        let bytes = bytes.ok_or_else(|| Error::usage(format!("no tensor {name}")))?;
        out.copy_from_slice(&bytes[at as usize..][..out.len()]);
        Ok(())
    }
}

const CACHE: Cache = Cache { layer: 0, part: CachePart::Key };

impl Trial {
    /// Makes up the inputs of `case`, a different set for each `seed`, and computes the exact result.
    pub fn new(case: Case<AnyOp>, seed: u64) -> Trial {
        let inputs = Inputs::new(&case, seed);
        let exact: Vec<Exact> = case.src.iter().zip(&inputs.0).map(|(s, bytes)| Exact::of(&s.view(bytes))).collect();
        let want = case.op.oracle(&exact);
        Trial { dst: result(&case), inputs, want, case }
    }

    /// The case.
    pub fn case(&self) -> &Case<AnyOp> {
        &self.case
    }

    /// Type and shape of the result.
    pub fn result(&self) -> Meta {
        self.dst
    }

    /// Runs the op's CPU code; gives its normalised mean squared error.
    pub fn on_cpu(&self, pool: &dyn Pool) -> f64 {
        let in_place = self.case.op.in_place();
        // NaNs, so that what is not written is noticed.
        let mut out = in_place.map_or_else(|| vec![0xff; self.dst.span_bytes()], |i| self.inputs.0[i].clone());
        let mut views: Vec<View> = self.inputs.0.iter().zip(&self.case.src).map(|(b, s)| s.view(b)).collect();
        if let Some(i) = in_place {
            views[i].data = &[];
        }
        self.case.op.cpu(&views, ViewMut { meta: self.dst, data: &mut out }, pool);
        self.error(&View::new(self.dst, &out))
    }

    /// The trial on a device, where each of the op's kernels can be run.
    pub fn on_gpu(&self, device: &Device) -> GpuTrial<'_> {
        GpuTrial { trial: self, bench: Bench::new(device, &self.case, &self.inputs) }
    }

    fn error(&self, got: &View) -> f64 {
        let got: Vec<f32> = Exact::of(got).data.iter().map(|v| *v as f32).collect();
        nmse(&got, &self.want)
    }
}

/// What the op makes of the case's sources.
fn result(case: &Case<AnyOp>) -> Meta {
    let src: Vec<Meta> = case.src.iter().map(|s| s.meta).collect();
    case.op.infer(&src).expect("cases are well formed")
}

/// The variants of `case`'s kernels on a device with `caps`, best first.
fn variants(case: &Case<AnyOp>, caps: &Caps) -> Vec<&'static str> {
    let src: Vec<Meta> = case.src.iter().map(|s| s.meta).collect();
    case.op.gpu(&src, &result(case), caps).iter().map(|k| k.variant).collect()
}

/// A [`Trial`] on a device.
pub struct GpuTrial<'t> {
    trial: &'t Trial,
    bench: Bench,
}

impl GpuTrial<'_> {
    /// The variants of the op's kernels here, best first.
    pub fn variants(&self) -> Vec<&'static str> {
        variants(&self.trial.case, self.bench.device.caps())
    }

    /// Runs kernel number `n`; gives its normalised mean squared error. Fails with `Unsupported` where the kernel cannot
    /// read the tensors as they lie or is too large for the device.
    pub fn run(&mut self, n: usize) -> Result<f64> {
        let mut ready = self.bench.prepare(n)?;
        let bytes = ready.run_read(&self.bench.output())?.wait()?;
        Ok(self.trial.error(&View::new(self.trial.dst, &bytes)))
    }
}

/// A case as a graph of one node: sources are weights, but for the one that is updated in place, which is a cache.
struct Bench {
    device: Device,
    graph: Graph,
    inputs: Arc<Inputs>,
    in_place: Option<usize>,
    weights: Weights,
}

impl Bench {
    fn new(device: &Device, case: &Case<AnyOp>, inputs: &Arc<Inputs>) -> Bench {
        let mut graph = Graph::new();
        let mut src = Vec::new();
        for (i, (input, bytes)) in case.src.iter().zip(&inputs.0).enumerate() {
            let whole = match input.offset == 0 && input.meta.is_packed() {
                true => input.meta,
                false => Meta::new(input.meta.dtype, [bytes.len() / input.meta.dtype.block_bytes()]),
            };
            let at = match case.op.in_place() == Some(i) {
                true => graph.cache(CACHE, whole),
                false => graph.weight(&format!("src{i}"), whole),
            };
            src.push(Tensor { meta: input.meta, offset: input.offset, ..at });
        }
        graph.output = Some(graph.op("case", case.op.clone(), &src).expect("cases are well formed"));
        let (inputs, in_place) = (inputs.clone(), case.op.in_place());
        Bench { device: device.clone(), graph, weights: Weights::new(device, inputs.clone()), inputs, in_place }
    }

    fn output(&self) -> Tensor {
        self.graph.output.expect("set when it was made")
    }

    /// A program of kernel number `n` alone, its result filled with NaNs, so that what is not written is noticed.
    fn prepare(&mut self, n: usize) -> Result<Program> {
        let plan = Plan::single(&self.graph, Place::Gpu);
        let mut memory = Memory::new(&self.device, 64);
        let choose = |_: usize, kernels: Vec<_>| kernels.into_iter().skip(n).take(1).collect();
        let (device, graph) = (&self.device, &self.graph);
        let new = Program::new_async(device, graph, 0..1, &plan, &mut memory, &mut self.weights, &choose);
        let mut program = pollster::block_on(new)?;
        let output = self.output();
        match self.in_place {
            Some(i) => memory.write_cache(CACHE, 0, &self.inputs.0[i])?,
            None => program.write_temp(output.buf, &vec![0xff; output.meta.span_bytes().next_multiple_of(4)])?,
        }
        Ok(program)
    }
}

/// What is known of one kernel after its trials.
#[derive(Debug, Clone)]
pub struct Check {
    /// The op.
    pub op: &'static str,
    /// Which of its kernels; `cpu` for its CPU code.
    pub variant: &'static str,
    /// Trials that ran.
    pub cases: usize,
    /// The error that comes nearest to what its case allows, or goes furthest beyond.
    pub worst: f64,
    /// What that case allows; 0 wants equality.
    pub allowed: f64,
    /// Trials that the kernel refused: it cannot be used for them on this device, and others are.
    pub refused: usize,
    /// What went wrong: wrong results with their case, or the device's error. Empty where all is well.
    pub failures: Vec<String>,
}

/// Checks by kernel, in the order they were met.
#[derive(Debug, Default)]
struct Checks(Vec<Check>);

impl Checks {
    fn of(&mut self, op: &'static str, variant: &'static str) -> &mut Check {
        let at = self.0.iter().position(|c| c.op == op && c.variant == variant).unwrap_or_else(|| {
            let (worst, allowed, failures) = (0.0, 0.0, Vec::new());
            self.0.push(Check { op, variant, cases: 0, worst, allowed, refused: 0, failures });
            self.0.len() - 1
        });
        &mut self.0[at]
    }
}

impl Check {
    fn add(&mut self, case: &Case<AnyOp>, error: f64) {
        let how_bad = |error: f64, allowed: f64| if error == 0.0 { 0.0 } else { error / allowed };
        if self.cases == 0 || how_bad(error, case.nmse) > how_bad(self.worst, self.allowed) {
            (self.worst, self.allowed) = (error, case.nmse);
        }
        self.cases += 1;
        if error > case.nmse {
            self.failures.push(format!("{}: error {error:.1e}, allowed {:.0e}", describe(case), case.nmse));
        }
    }
}

/// The case in words: `MatMul of q8_0 [48, 512], f32 [1, 512]`.
pub fn describe(case: &Case<AnyOp>) -> String {
    let src: Vec<String> = case.src.iter().map(|s| format!("{:?} + {}", s.meta, s.offset)).collect();
    format!("{:?} of {}", case.op, src.join(", "))
}

/// The cases of all ops; with `quick` only as many as it takes to run each kernel once on a device with `caps`.
pub fn cases(quick: bool, caps: &Caps) -> Vec<Case<AnyOp>> {
    let all = AnyOp::cases();
    if !quick {
        return all;
    }
    let mut seen: Vec<(&str, &str)> = Vec::new();
    let new = |case: &Case<AnyOp>| {
        let before = seen.len();
        for kernel in variants(case, caps).into_iter().map(|v| (case.op.name(), v)) {
            if !seen.contains(&kernel) {
                seen.push(kernel);
            }
        }
        seen.len() > before
    };
    all.into_iter().filter(new).collect()
}

/// Runs the CPU code of all `cases`; `progress` hears how many are done and may stop the work by an error.
pub fn check_cpu(
    cases: &[Case<AnyOp>],
    pool: &dyn Pool,
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<Check>> {
    let mut checks = Checks::default();
    for (i, case) in cases.iter().enumerate() {
        let error = Trial::new(case.clone(), seed(i)).on_cpu(pool);
        checks.of(case.op.name(), "cpu").add(case, error);
        progress(i + 1)?;
    }
    Ok(checks.0)
}

/// Devices may be lost this often before a check is given up.
const LOSSES: usize = 3;

/// Runs all kernels of all `cases` on the device that `open` gives. A kernel that loses the device is noted and not tried again,
/// and the rest goes on with another call of `open`; the third loss is an error.
pub fn check_gpu(
    cases: &[Case<AnyOp>],
    open: &dyn Fn() -> Result<Device>,
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<Check>> {
    let (mut device, mut checks, mut lost) = (open()?, Checks::default(), Vec::new());
    for (i, case) in cases.iter().enumerate() {
        let trial = Trial::new(case.clone(), seed(i));
        let mut here = trial.on_gpu(&device);
        for (n, variant) in here.variants().into_iter().enumerate() {
            let kernel = (case.op.name(), variant);
            if lost.contains(&kernel) {
                continue;
            }
            let check = checks.of(kernel.0, kernel.1);
            match here.run(n) {
                Ok(error) => check.add(case, error),
                Err(e) if e.kind() == ErrorKind::Unsupported => check.refused += 1,
                Err(e) if e.kind() == ErrorKind::DeviceLost => {
                    check.failures.push(format!("{}: {e}", describe(case)));
                    lost.push(kernel);
                    if lost.len() >= LOSSES {
                        return Err(e);
                    }
                    device = open()?;
                    here = trial.on_gpu(&device);
                }
                Err(e) => check.failures.push(format!("{}: {e}", describe(case))),
            }
        }
        progress(i + 1)?;
    }
    Ok(checks.0)
}

fn seed(case: usize) -> u64 {
    case as u64 * 16
}

/// What bounds decoding on a device.
#[derive(Debug, Clone, Copy)]
pub struct Speed {
    /// From submitting next to nothing to having its result: paid for every token.
    pub round_trip: Duration,
    /// Bytes of weights per second that a matrix-vector product reads.
    pub bytes_per_second: f64,
}

/// Rows and columns of the matrix: 128 MiB of f16, more than caches hold.
const MATRIX: [usize; 2] = [16384, 4096];

/// Measures `device`.
pub fn speed(device: &Device) -> Result<Speed> {
    let time = |n: usize, k: usize| {
        let weights = ops::Input::filled(Meta::new(DType::F16, [n, k]), ops::Fill::Uniform { scale: 1.0, offset: 0.0 });
        let case = Case { op: MatMul.into(), src: vec![weights, ops::Input::f32([1, k])], nmse: 0.0 };
        let mut bench = Bench::new(device, &case, &Inputs::new(&case, 0));
        let fits = |n: &usize| bench.prepare(*n).is_ok();
        let mut program = match (0..variants(&case, device.caps()).len()).find(fits) {
            Some(n) => bench.prepare(n)?,
            None => bench.prepare(0)?,
        };
        // The first runs wake the device up.
        let mut times = Vec::new();
        for _ in 0..9 {
            let start = Instant::now();
            program.run_read(&bench.output())?.wait()?;
            times.push(start.elapsed());
        }
        times.sort();
        Ok::<Duration, Error>(times[times.len() / 2])
    };
    let round_trip = time(32, 32)?;
    let [n, k] = MATRIX;
    let reading = time(n, k)?.saturating_sub(round_trip).max(Duration::from_nanos(1));
    Ok(Speed { round_trip, bytes_per_second: (2 * n * k) as f64 / reading.as_secs_f64() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Add, Input, Serial};

    fn case() -> Case<AnyOp> {
        Case { op: Add { scale: 1.0 }.into(), src: vec![Input::f32([2, 8]), Input::f32([2, 8])], nmse: 1e-12 }
    }

    #[test]
    fn a_wrong_result_is_found() {
        let mut trial = Trial::new(case(), 1);
        assert!(trial.on_cpu(&Serial) <= 1e-12);
        trial.want[3] += 0.1;
        let error = trial.on_cpu(&Serial);
        assert!(error > 1e-5, "{error}");
        let mut checks = Checks::default();
        checks.of("add", "cpu").add(&case(), 1e-13);
        assert!(checks.0[0].failures.is_empty() && checks.0[0].worst == 1e-13);
        checks.of("add", "cpu").add(&case(), error);
        checks.of("add", "cpu").add(&case(), f64::INFINITY);
        let check = &checks.0[0];
        assert_eq!((checks.0.len(), check.cases, check.failures.len(), check.worst), (1, 3, 2, f64::INFINITY));
    }

    #[test]
    fn the_quick_look_meets_every_kernel() {
        let caps = Caps { subgroups: Some((32, 32)), ..Caps::BASELINE };
        let kernels = |quick| {
            let mut all: Vec<(&str, &str)> = cases(quick, &caps)
                .iter()
                .flat_map(|c| variants(c, &caps).into_iter().map(|v| (c.op.name(), v)))
                .collect();
            all.sort();
            all.dedup();
            all
        };
        assert_eq!(kernels(true), kernels(false));
        assert!(cases(true, &caps).len() * 2 < cases(false, &caps).len());
    }
}
