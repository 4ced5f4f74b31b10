//! Every kernel against its definition, on the device at hand: what `doctor` shows and the tests demand.

use crate::base::{DType, ErrorKind, Meta, Result, View, ViewMut};
use crate::gpu::{self, Device, Memory, Program, Source, Weights};
use crate::graph::{Graph, Place, Schedule};
use crate::ops::{AnyOp, Caps, Case, Exact, MatMul, Threads, nmse};
use std::sync::Arc;
use web_time::{Duration, Instant};

/// A case on the CPU: its inputs and the exact result. On a GPU it is a [`gpu::Check`].
pub struct Trial {
    case: Case<AnyOp>,
    inputs: Vec<Vec<u8>>,
    dst: Meta,
    want: Vec<f64>,
}

impl Trial {
    /// Makes up the inputs of `case`, a different set for each `seed`, and computes the exact result.
    pub fn new(case: Case<AnyOp>, seed: u64) -> Trial {
        let inputs: Vec<Vec<u8>> = case.src.iter().zip(seed..).map(|(input, seed)| input.bytes(seed)).collect();
        let exact: Vec<Exact> = case.src.iter().zip(&inputs).map(|(s, bytes)| Exact::of(&s.view(bytes))).collect();
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
    pub fn run(&self, pool: &dyn Threads) -> f64 {
        let in_place = self.case.op.in_place();
        // NaNs, so that what is not written is noticed.
        let mut out = in_place.map_or_else(|| vec![0xff; self.dst.span_bytes()], |i| self.inputs[i].clone());
        let mut views: Vec<View> = self.inputs.iter().zip(&self.case.src).map(|(b, s)| s.view(b)).collect();
        self.case.op.written().for_each(|i| views[i].data = &[]);
        let mut updated: Vec<Vec<u8>> = self.case.op.updates().map(|i| self.inputs[i].clone()).collect();
        let mut more: Vec<ViewMut> = (self.case.op.updates().zip(&mut updated))
            .map(|(i, data)| {
                let (meta, start) = (self.case.src[i].meta, self.case.src[i].offset);
                ViewMut { meta, data: &mut data[meta.dtype.row_bytes(start).expect("whole blocks")..] }
            })
            .collect();
        self.case.op.cpu(&views, ViewMut { meta: self.dst, data: &mut out }, &mut more, pool);
        let mut got = Exact::of(&View::new(self.dst, &out)).data;
        more.iter().for_each(|m| got.extend(Exact::of(&View::new(m.meta, m.data)).data));
        let got: Vec<f32> = got.iter().map(|v| *v as f32).collect();
        nmse(&got, &self.want)
    }
}

/// What the op makes of the case's sources.
fn result(case: &Case<AnyOp>) -> Meta {
    case.op.infer(&metas(case)).expect("cases are well formed")
}

fn metas(case: &Case<AnyOp>) -> Vec<Meta> {
    case.src.iter().map(|s| s.meta).collect()
}

/// The variants of `case`'s kernels on a device with `caps`, best first.
fn variants(case: &Case<AnyOp>, caps: &Caps) -> Vec<&'static str> {
    case.op.gpu(&metas(case), &result(case), caps).iter().map(|k| k.variant).collect()
}

/// What is known of one kernel after its trials.
#[derive(Debug, Clone)]
pub struct Finding {
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

/// Findings by kernel, in the order they were met.
#[derive(Debug, Default)]
pub struct Findings(pub Vec<Finding>);

impl Findings {
    fn of(&mut self, op: &'static str, variant: &'static str) -> &mut Finding {
        let at = self.0.iter().position(|c| c.op == op && c.variant == variant).unwrap_or_else(|| {
            let (worst, allowed, failures) = (0.0, 0.0, Vec::new());
            self.0.push(Finding { op, variant, cases: 0, worst, allowed, refused: 0, failures });
            self.0.len() - 1
        });
        &mut self.0[at]
    }
}

impl Finding {
    /// Notes a trial's error; `rounding` is what the kernel's arithmetic may add to what the case allows.
    fn add(&mut self, case: &Case<AnyOp>, error: f64, rounding: f64) {
        let allowed = case.nmse + rounding;
        let how_bad = |error: f64, allowed: f64| if error == 0.0 { 0.0 } else { error / allowed };
        if self.cases == 0 || how_bad(error, allowed) > how_bad(self.worst, self.allowed) {
            (self.worst, self.allowed) = (error, allowed);
        }
        self.cases += 1;
        if error > allowed {
            self.failures.push(format!("{}: error {error:.1e}, allowed {allowed:.0e}", describe(case)));
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

impl Findings {
    /// Runs the CPU code of all `cases`; `progress` hears how many are done and may stop the work by an error.
    pub fn check_cpu(
        &mut self,
        cases: &[Case<AnyOp>],
        pool: &dyn Threads,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        for (i, case) in cases.iter().enumerate() {
            let error = Trial::new(case.clone(), seed(i)).run(pool);
            self.of(case.op.name(), "cpu").add(case, error, 0.0);
            progress(i + 1)?;
        }
        Ok(())
    }

    /// Runs all kernels of all `cases` on the device that `open` gives. A kernel that loses the device is noted and not tried
    /// again, and the rest goes on with another call of `open`; the third loss is an error. Blocks; see
    /// [`check_gpu_async`](Self::check_gpu_async).
    pub fn check_gpu(
        &mut self,
        cases: &[Case<AnyOp>],
        open: &dyn Fn() -> Result<Device>,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        pollster::block_on(self.check_gpu_async(cases, async || open(), progress))
    }

    /// As [`check_gpu`](Self::check_gpu).
    pub async fn check_gpu_async(
        &mut self,
        cases: &[Case<AnyOp>],
        open: impl AsyncFn() -> Result<Device>,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        let (mut device, mut lost) = (open().await?, Vec::new());
        for (i, case) in cases.iter().enumerate() {
            let mut check = gpu::Check::new(&device, case, seed(i))?;
            for (n, variant) in check.kernels().to_vec().into_iter().enumerate() {
                let kernel = (case.op.name(), variant);
                if lost.contains(&kernel) {
                    continue;
                }
                let finding = self.of(kernel.0, kernel.1);
                let failed = match check.run_async(n).await {
                    Ok(done) => {
                        finding.add(case, done.nmse, done.rounding);
                        continue;
                    }
                    Err(e) if e.kind() == ErrorKind::Unsupported => {
                        finding.refused += 1;
                        continue;
                    }
                    Err(e) => e,
                };
                finding.failures.push(format!("{}: {failed}", describe(case)));
                if failed.kind() == ErrorKind::DeviceLost {
                    lost.push(kernel);
                    if lost.len() >= LOSSES {
                        return Err(failed);
                    }
                    device = open().await?;
                    check = gpu::Check::new(&device, case, seed(i))?;
                }
            }
            progress(i + 1)?;
        }
        Ok(())
    }
}

/// Devices may be lost this often before a check is given up.
const LOSSES: usize = 3;

fn seed(case: usize) -> u64 {
    case as u64 * 16
}

/// What bounds decoding on a device.
#[derive(Debug, Clone, Copy)]
pub struct DecodeBounds {
    /// From submitting next to nothing to having its result: paid for every token.
    pub round_trip: Duration,
    /// Bytes of weights per second that a matrix-vector product reads.
    pub bytes_per_second: f64,
}

/// Rows and columns of the matrix: 128 MiB of f16, more than caches hold.
const MATRIX: [usize; 2] = [16384, 4096];

/// Measures `device`.
pub fn speed(device: &Device) -> Result<DecodeBounds> {
    let round_trip = product_time(device, 32, 32)?;
    let [n, k] = MATRIX;
    let reading = product_time(device, n, k)?.saturating_sub(round_trip).max(Duration::from_nanos(1));
    Ok(DecodeBounds { round_trip, bytes_per_second: (2 * n * k) as f64 / reading.as_secs_f64() })
}

/// The median time of a product of an f16 matrix `[n, k]` with a vector, from submitting to having the result.
fn product_time(device: &Device, n: usize, k: usize) -> Result<Duration> {
    let mut graph = Graph::new();
    let matrix = graph.weight("matrix", Meta::new(DType::F16, [n, k]));
    let vector = graph.weight("vector", Meta::f32([1, k]));
    let output = graph.op("product", MatMul, &[matrix, vector])?;
    graph.output = Some(output);
    let (mut memory, mut weights) = (Memory::new(device, 1), Weights::new(device, Arc::new(Zeros)));
    let schedule = Schedule::single(&graph, Place::Gpu);
    let mut program = Program::new(device, &graph, 0..1, &schedule, &mut memory, &mut weights)?;
    let mut times = Vec::new();
    // The first runs wake the device up.
    for _ in 0..9 {
        let start = Instant::now();
        program.run_read(&output)?.wait()?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2])
}

/// Tensors whose values do not matter.
struct Zeros;

impl Source for Zeros {
    fn read(&self, _: &str, _: u64, out: &mut [u8]) -> Result<()> {
        out.fill(0);
        Ok(())
    }
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
        assert!(trial.run(&Serial) <= 1e-12);
        trial.want[3] += 0.1;
        let error = trial.run(&Serial);
        assert!(error > 1e-5, "{error}");
        let mut findings = Findings::default();
        findings.of("add", "cpu").add(&case(), 1e-13, 0.0);
        assert!(findings.0[0].failures.is_empty() && findings.0[0].worst == 1e-13);
        findings.of("add", "cpu").add(&case(), error, 0.0);
        findings.of("add", "cpu").add(&case(), f64::INFINITY, 0.0);
        let finding = &findings.0[0];
        assert_eq!((findings.0.len(), finding.cases, finding.failures.len(), finding.worst), (1, 3, 2, f64::INFINITY));
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
