//! `doctor`: runs every kernel on the user's device and says what is slow or wrong, and what to do.

use super::hub::progress::counted;
use super::term;
use crate::base::{Error, Result};
use crate::cpu::ThreadPool;
use crate::gpu::{AdapterInfo, Device, Selector};
use crate::open::DeviceChoice;
use crate::ops::{Caps, Threads};
use crate::run::selftest::{self, DecodeBounds, Finding, Findings};
use crate::simd::Level;
use clap::Args;
use indicatif::ProgressBar;
use serde_json::{Value as Json, json};

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// [-dev] auto, cpu, gpu, gpu:N or gpu:NAME. auto takes a real GPU, else one that the CPU plays.
    #[arg(long, value_name = "DEVICE", default_value = "auto", env = "WGPU_LLM_DEVICE")]
    device: DeviceChoice,
    /// Run each kernel once only, not in all formats and shapes.
    #[arg(long, env = "WGPU_LLM_QUICK")]
    quick: bool,
    /// Print JSON.
    #[arg(long, env = "WGPU_LLM_JSON")]
    json: bool,
}

/// All that was found out.
#[derive(Debug, Default)]
struct Report {
    gpu: Option<Gpu>,
    /// Why there is no GPU, if one was looked for.
    no_gpu: Option<String>,
    checks: Findings,
}

/// The examined device.
#[derive(Debug)]
struct Gpu {
    info: AdapterInfo,
    caps: Caps,
    timestamps: bool,
    speed: Option<DecodeBounds>,
    /// Why the examination ended early.
    failed: Option<String>,
}

/// Examines, reports, and fails if a kernel computes wrongly.
pub fn run(args: &DoctorArgs) -> Result<()> {
    let report = examine(args)?;
    let (advice, sick) = (advice(&report), report.is_sick());
    if args.json {
        term::print(format_args!("{:#}\n", report.to_json(&advice)))?;
    } else {
        term::print(report.to_text(&advice))?;
    }
    match sick {
        None => Ok(()),
        Some(what) => Err(Error::new(crate::base::ErrorKind::Numeric, what).help("what to do stands above")),
    }
}

fn examine(args: &DoctorArgs) -> Result<Report> {
    let mut report = Report::default();
    let selector = match &args.device {
        // A software adapter too, if there is nothing else: it is to be checked, not to be fast.
        DeviceChoice::Auto => Some(Selector::Gpu),
        choice => choice.selector(),
    };
    if let Some(selector) = selector {
        match Device::open(&selector) {
            Ok(device) => examine_gpu(&device, &selector, args.quick, &mut report)?,
            Err(e) if args.device == DeviceChoice::Auto => report.no_gpu = Some(e.to_string()),
            Err(e) => return Err(e),
        }
    }
    let pool = ThreadPool::per_core();
    let cases = selftest::cases(args.quick, &Caps::BASELINE);
    let bar = counted("checking", &format!("the CPU, {} threads", pool.threads()), cases.len(), "cases");
    report.checks.check_cpu(&cases, &pool, &mut |done| step(&bar, done))?;
    bar.finish_and_clear();
    Ok(report)
}

fn examine_gpu(device: &Device, selector: &Selector, quick: bool, report: &mut Report) -> Result<()> {
    let (info, caps) = (device.info().clone(), device.caps().clone());
    let cases = selftest::cases(quick, &caps);
    let bar = counted("checking", &info.name, cases.len(), "cases");
    // The device that is open serves first; another is opened only after that one was lost.
    let spare = std::cell::Cell::new(Some(device.clone()));
    let open = || spare.take().map_or_else(|| Device::open(selector), Ok);
    let checked = report.checks.check_gpu(&cases, &open, &mut |done| step(&bar, done));
    bar.finish_and_clear();
    term::check_interrupt()?;
    let mut gpu = Gpu { info, caps, timestamps: device.has_timestamps(), speed: None, failed: None };
    match checked.and_then(|()| selftest::speed(device)) {
        Ok(speed) => gpu.speed = Some(speed),
        Err(e) => gpu.failed = Some(e.to_string()),
    }
    report.gpu = Some(gpu);
    Ok(())
}

fn step(bar: &ProgressBar, done: usize) -> Result<()> {
    bar.set_position(done as u64);
    term::check_interrupt()
}

impl Finding {
    fn verdict(&self) -> &'static str {
        match (self.failures.is_empty(), self.cases) {
            (false, _) => "WRONG",
            (true, 0) => "not usable",
            (true, _) => "ok",
        }
    }
}

impl Report {
    fn wrong(&self) -> Vec<&Finding> {
        self.checks.0.iter().filter(|c| !c.failures.is_empty()).collect()
    }

    /// What is wrong, in one sentence.
    fn is_sick(&self) -> Option<String> {
        let wrong = self.wrong().len();
        let failed = self.gpu.as_ref().and_then(|g| g.failed.as_ref());
        match (wrong, failed) {
            (0, None) => None,
            (0, Some(why)) => Some(format!("the examination ended early: {why}")),
            (n, _) => Some(format!("{n} of {} kernels compute wrongly", self.checks.0.len())),
        }
    }

    fn to_text(&self, advice: &[String]) -> String {
        let mut text = format!("{} {}\n", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        let rows: Vec<Vec<String>> = self.facts().into_iter().map(|(k, v)| vec![k.to_string(), v]).collect();
        text += &term::table(&rows);
        let mut rows = vec![["KERNEL", "CASES", "WORST ERROR", "ALLOWED", "VERDICT"].map(String::from).to_vec()];
        for c in &self.checks.0 {
            let kernel = format!("{}/{}", c.op, c.variant);
            let number = |n: f64| if n == 0.0 { "exact".to_string() } else { format!("{n:.0e}") };
            let (worst, allowed) = match c.cases {
                0 => Default::default(),
                _ => (number(c.worst), number(c.allowed)),
            };
            rows.push(vec![kernel, c.cases.to_string(), worst, allowed, c.verdict().into()]);
        }
        text += &format!("\n{}", term::table(&rows));
        for c in self.wrong() {
            text += &format!("\n{}/{} is wrong:\n", c.op, c.variant);
            c.failures.iter().take(SHOWN).for_each(|f| text += &format!("  {f}\n"));
            if c.failures.len() > SHOWN {
                text += &format!("  and {} more\n", c.failures.len() - SHOWN);
            }
        }
        text.push('\n');
        match advice {
            [] => text += "All is well.\n",
            advice => advice.iter().for_each(|a| text += &format!("- {a}\n")),
        }
        text
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = Vec::new();
        if let Some(Gpu { info, caps, speed, .. }) = &self.gpu {
            facts.push(("adapter", format!("{} ({}, {})", info.name, info.backend, info.kind)));
            facts.push(("driver", info.driver.clone()));
            let features = match info.features.is_empty() {
                true => "none of those that kernels know".to_string(),
                false => info.features.join(", "),
            };
            facts.push(("features", features));
            if let Some((min, max)) = info.subgroups {
                facts.push(("subgroups", if min == max { format!("of {min}") } else { format!("of {min} to {max}") }));
            }
            let (binding, buffer) = (term::bytes(info.max_binding), term::bytes(info.max_buffer));
            let shared = term::bytes(caps.max_shared.into());
            facts.push(("limits", format!("bindings of {binding}, buffers of {buffer}")));
            facts.push(("workgroups", format!("of {} threads with {shared}", caps.max_invocations)));
            if let Some(speed) = speed {
                let gb = speed.bytes_per_second / 1e9;
                let ms = speed.round_trip.as_secs_f64() * 1e3;
                facts.push(("speed", format!("reads weights at {gb:.1} GB/s; a round trip takes {ms:.2} ms")));
            }
        }
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        facts.push(("CPU", format!("{cores} cores, {}", Level::best().name())));
        facts
    }

    fn to_json(&self, advice: &[String]) -> Json {
        let gpu = self.gpu.as_ref().map(|Gpu { info, caps, timestamps, speed, failed }| {
            json!({
                "name": info.name, "backend": info.backend, "driver": info.driver, "kind": info.kind, "software": info.software,
                "features": info.features, "subgroups": info.subgroups, "timestamps": timestamps,
                "limits": {
                    "max_binding": info.max_binding, "max_buffer": info.max_buffer, "max_invocations": caps.max_invocations,
                    "max_shared": caps.max_shared, "max_workgroups": caps.max_workgroups,
                },
                "round_trip_seconds": speed.map(|s| s.round_trip.as_secs_f64()),
                "bytes_per_second": speed.map(|s| s.bytes_per_second), "failed": failed,
            })
        });
        let check = |c: &Finding| {
            // JSON has no infinity: a result that is no number has no error.
            let worst = c.worst.is_finite().then_some(c.worst);
            json!({
                "op": c.op, "variant": c.variant, "cases": c.cases, "refused": c.refused, "error": worst, "allowed": c.allowed,
                "verdict": c.verdict(), "failures": c.failures,
            })
        };
        json!({
            "version": env!("CARGO_PKG_VERSION"), "gpu": gpu, "no_gpu": self.no_gpu,
            "cpu": {"cores": std::thread::available_parallelism().map_or(1, |n| n.get()), "simd": Level::best().name()},
            "kernels": self.checks.0.iter().map(check).collect::<Vec<_>>(), "advice": advice, "ok": self.is_sick().is_none(),
        })
    }
}

/// Failures shown of each kernel.
const SHOWN: usize = 5;
/// A round trip longer than this is felt in every token.
const SLOW_ROUND_TRIP: f64 = 2e-3;
/// Bindings smaller than this bound the context of ordinary models.
const SMALL_BINDING: u64 = 1 << 30;

/// What is slow or wrong, and what to do.
fn advice(report: &Report) -> Vec<String> {
    let mut advice = Vec::new();
    let wrong = |on_cpu: bool| report.wrong().iter().filter(|c| (c.variant == "cpu") == on_cpu).count();
    if let Some(why) = &report.no_gpu {
        advice.push(format!("{why}. Models run on the CPU"));
    }
    if let Some(gpu) = &report.gpu {
        advise_on_gpu(gpu, wrong(false), &mut advice);
    }
    if wrong(true) > 0 {
        let what = format!("{} kernels compute wrongly on this CPU ({})", wrong(true), Level::best().name());
        advice
            .push(format!("{what}: check its memory and its clock, and report this with the output of doctor --json"));
    }
    let refused: Vec<String> = report
        .checks
        .0
        .iter()
        .filter(|c| c.failures.is_empty() && c.cases == 0)
        .map(|c| format!("{}/{}", c.op, c.variant))
        .collect();
    if !refused.is_empty() {
        advice
            .push(format!("kernels that are too large for this device: {}; others do their work", refused.join(", ")));
    }
    advice
}

fn advise_on_gpu(gpu: &Gpu, wrong: usize, advice: &mut Vec<String>) {
    let Gpu { info, speed, failed, .. } = gpu;
    if let Some(why) = failed {
        advice.push(format!("the examination ended early: {why}"));
    }
    if wrong > 0 {
        advice.push(format!(
            "{wrong} kernels compute wrongly: do not trust answers from this device. Update its driver (now {}); until that helps, \
             use --device cpu. Please report it with the output of doctor --json",
            info.driver
        ));
    }
    if info.software {
        advice.push(format!(
            "{} is a CPU that plays a GPU: --device cpu is several times faster. If there is a real GPU here, install its driver \
             (Vulkan, Metal or DX12)",
            info.name
        ));
    }
    let lacks = |feature: &str| !info.features.contains(&feature);
    if lacks("subgroups") {
        advice.push(
            "no subgroup operations: sums go through workgroup memory, which is slower. A newer driver may have them"
                .into(),
        );
    }
    if lacks("timestamp-query") {
        advice.push("no timestamps: --trace cannot time this device".into());
    }
    if info.max_binding < SMALL_BINDING {
        advice.push(format!(
            "bindings end at {}: larger weights are cut into pieces, and the cache of a long context may not fit; then use -c",
            term::bytes(info.max_binding)
        ));
    }
    match speed {
        Some(speed) if !info.software && speed.round_trip.as_secs_f64() > SLOW_ROUND_TRIP => {
            advice.push(format!(
                "a round trip takes {:.1} ms: small models may be faster with --device cpu. Close other programs that use the GPU, \
                 and look at its power settings",
                speed.round_trip.as_secs_f64() * 1e3
            ));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn healthy() -> Report {
        let info = AdapterInfo {
            name: "Radeon".into(),
            backend: "vulkan".into(),
            driver: "radv 1".into(),
            kind: "discrete",
            software: false,
            max_binding: 4 << 30,
            max_buffer: 4 << 30,
            subgroups: Some((32, 64)),
            features: vec!["subgroups", "shader-f16", "timestamp-query"],
        };
        let speed = DecodeBounds { round_trip: Duration::from_micros(100), bytes_per_second: 5e11 };
        let gpu = Gpu { info, caps: Caps::BASELINE, timestamps: true, speed: Some(speed), failed: None };
        let check = |variant| Finding {
            op: "add",
            variant,
            cases: 3,
            worst: 1e-14,
            allowed: 1e-7,
            refused: 0,
            failures: Vec::new(),
        };
        Report { gpu: Some(gpu), no_gpu: None, checks: Findings(vec![check("shared"), check("cpu")]) }
    }

    fn says(change: impl Fn(&mut Report), words: &str) -> Report {
        let mut report = healthy();
        change(&mut report);
        let text = report.to_text(&advice(&report));
        assert!(text.contains(words), "{words:?} is not in {text}");
        report
    }

    fn on_gpu(change: impl Fn(&mut Gpu)) -> impl Fn(&mut Report) {
        move |report| change(report.gpu.as_mut().unwrap())
    }

    #[test]
    fn a_healthy_device_needs_no_advice() {
        let report = says(|_| {}, "All is well.");
        assert!(report.is_sick().is_none() && advice(&report).is_empty());
        let text = report.to_text(&[]);
        for part in
            ["Radeon (vulkan, discrete)", "radv 1", "of 32 to 64", "500.0 GB/s", "0.10 ms", "add/shared", "1e-14"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(report.to_json(&[])["ok"], true);
    }

    #[test]
    fn wrong_kernels_are_named_with_what_to_do() {
        let wrong = |report: &mut Report| {
            report.checks.0[0].failures = vec!["Add of f32".into(); 7];
            report.checks.0[0].worst = f64::INFINITY;
        };
        let report = says(wrong, "Update its driver (now radv 1)");
        assert_eq!(report.is_sick().as_deref(), Some("1 of 2 kernels compute wrongly"));
        says(wrong, "add/shared is wrong:\n  Add of f32");
        says(wrong, "and 2 more");
        let json = report.to_json(&[]);
        assert_eq!((&json["ok"], &json["kernels"][0]["verdict"]), (&false.into(), &"WRONG".into()));
        assert_eq!(json["kernels"][0]["error"], Json::Null);
        says(|f| f.checks.0[1].failures = vec!["x".into()], "on this CPU");
    }

    #[test]
    fn what_is_slow_or_missing_is_said() {
        says(on_gpu(|g| g.info.software = true), "--device cpu is several times faster");
        says(on_gpu(|g| g.info.features.retain(|f| *f != "subgroups")), "no subgroup operations");
        says(on_gpu(|g| g.info.features.retain(|f| *f != "timestamp-query")), "--trace");
        says(on_gpu(|g| g.info.max_binding = 128 << 20), "bindings end at 128.0 MiB");
        says(on_gpu(|g| g.speed.as_mut().unwrap().round_trip = Duration::from_millis(9)), "a round trip takes 9.0 ms");
        let lost = says(on_gpu(|g| g.failed = Some("the GPU was lost".into())), "ended early: the GPU was lost");
        assert!(lost.is_sick().is_some());
        says(|f| (f.gpu, f.no_gpu) = (None, Some("no GPU answers".into())), "no GPU answers. Models run on the CPU");
        says(|f| f.checks.0[0].cases = 0, "too large for this device: add/shared");
    }
}
