//! `bench --device-roofline`: what each device can do at the most.

use super::args::BenchArgs;
use super::numbers::Numbers;
use crate::app::term;
use crate::base::{Error, ErrorKind, Result};
use crate::gpu::{self, Device, Selector};
use crate::open::{self, DeviceChoice, system};
use crate::plan::rates::{self, DeviceRates};
use crate::plan::roofline::{self, Roofline};
use crate::simd::Level;
use serde_json::{Value as Json, json};
use std::time::Duration;

/// One device's limits.
struct Limits {
    device: String,
    name: String,
    threads: Option<usize>,
    roofline: Roofline,
    /// From handing over next to nothing to having its result, on a GPU.
    round_trip: Option<Duration>,
    /// How fast it decodes: what plans are made with.
    speed: DeviceRates,
}

/// Measures and prints.
pub fn run(args: &BenchArgs) -> Result<()> {
    let mut all = Vec::new();
    if matches!(args.device, DeviceChoice::Auto | DeviceChoice::Cpu) {
        measure_cpu(args, &mut all)?;
    }
    for (device, selector) in gpus(&args.device)? {
        term::note(format_args!("measuring {device}"));
        let gpu = Device::open(&selector)?;
        let name = format!("{} ({}, {})", gpu.info().name, gpu.info().backend, gpu.info().driver);
        let roofline = roofline::gpu(&gpu)?;
        let round_trip = Some(crate::run::selftest::speed(&gpu)?.round_trip);
        let speed = rates::gpu(&gpu)?;
        open::rates::keep(Some(&gpu), 0, speed);
        all.push(Limits { device, name, threads: None, roofline, round_trip, speed });
        term::check_interrupt()?;
    }
    if args.format() == super::output::Format::Md {
        return term::print(table(&all));
    }
    term::print(format_args!("{:#}\n", all.iter().map(Limits::to_json).collect::<Json>()))
}

fn measure_cpu(args: &BenchArgs, all: &mut Vec<Limits>) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mut threads = vec![1];
    match &args.threads[..] {
        [] => threads.extend((cores > 1).then_some(cores)),
        lists => threads = lists.iter().flat_map(|Numbers(list)| list.iter().map(|n| *n as usize)).collect(),
    }
    for n in threads {
        term::note(format_args!("measuring the CPU, threads: {n}"));
        let roofline = roofline::cpu(n.max(1));
        let roofline = roofline
            .ok_or_else(|| Error::new(ErrorKind::OutOfSystemMemory, "no memory to measure the bandwidth with"))?;
        let name = format!("{} ({})", system::cpu_name(), Level::best().name());
        let speed = rates::cpu(n)?;
        open::rates::keep(None, n, speed);
        if args.threads.is_empty() && n == cores {
            open::rates::keep(None, 0, speed);
        }
        all.push(Limits { device: "cpu".into(), name, threads: Some(n), roofline, round_trip: None, speed });
        term::check_interrupt()?;
    }
    Ok(())
}

/// The GPUs that are meant: with `auto` every real one.
fn gpus(choice: &DeviceChoice) -> Result<Vec<(String, Selector)>> {
    let list = gpu::list();
    let number = |i: usize| (format!("gpu:{i}"), Selector::Index(i));
    match choice.selector() {
        None => Ok(Vec::new()),
        Some(Selector::Auto) => Ok((0..list.len()).filter(|i| !list[*i].software).map(number).collect()),
        Some(selector) => Ok(vec![number(selector.choose(&list)?)]),
    }
}

impl Limits {
    /// Name, value and unit of all that was measured.
    fn rows(&self) -> Vec<(&'static str, f64, &'static str)> {
        let mut rows = rates(&self.roofline);
        rows.extend(self.round_trip.map(|t| ("round trip", t.as_secs_f64() * 1e6, "µs")));
        let s = &self.speed;
        rows.extend([("decode f16", s.bytes / 1e9, "GB/s"), ("decode q4_0", s.weights / 1e9, "G weights/s")]);
        rows.push(("step", s.step * 1e6, "µs"));
        rows
    }

    fn to_json(&self) -> Json {
        let r = &self.roofline;
        json!({
            "device": self.device, "name": self.name, "threads": self.threads,
            "read_bytes_per_second": r.read, "copy_bytes_per_second": r.copy, "f32_ops_per_second": r.f32,
            "f16_ops_per_second": r.f16, "bf16_ops_per_second": r.bf16, "int8_ops_per_second": r.int8,
            "matrix_ops_per_second": r.matrix, "round_trip_seconds": self.round_trip.map(|t| t.as_secs_f64()),
            "decode_bytes_per_second": self.speed.bytes, "decode_weights_per_second": self.speed.weights,
            "step_seconds": self.speed.step,
        })
    }
}

/// Name, value and unit of each rate that was measured.
fn rates(r: &Roofline) -> Vec<(&'static str, f64, &'static str)> {
    let memory = [("read", r.read), ("copy", r.copy)].map(|(name, v)| (name, v / 1e9, "GB/s"));
    let optional = [("f16", r.f16), ("bf16", r.bf16), ("int8", r.int8), ("matrix", r.matrix)];
    let optional = optional.into_iter().filter_map(|(name, v)| Some((name, v?)));
    let arithmetic = [("f32", r.f32)].into_iter().chain(optional);
    memory.into_iter().chain(arithmetic.map(|(name, v)| (name, v / 1e9, "Gop/s"))).collect()
}

/// All rates in a line.
pub fn line(roofline: &Roofline) -> String {
    let one = |(name, value, unit): &(&str, f64, &str)| format!("{name} {value:.1} {unit}");
    rates(roofline).iter().map(one).collect::<Vec<_>>().join(", ")
}

fn table(all: &[Limits]) -> String {
    let mut rows = vec![["DEVICE", "THREADS", "LIMIT", "RATE", ""].map(String::from).to_vec()];
    for limits in all {
        let threads = limits.threads.map_or(String::new(), |n| n.to_string());
        for (name, value, unit) in limits.rows() {
            rows.push(vec![limits.device.clone(), threads.clone(), name.into(), format!("{value:>10.1}"), unit.into()]);
        }
    }
    let mut names: Vec<String> = all.iter().map(|l| format!("{}: {}\n", l.device, l.name)).collect();
    names.dedup();
    names.concat() + &term::table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_lacks_is_left_out() {
        let roofline = Roofline { read: 5e10, copy: 4e10, f32: 1e12, int8: Some(2e12), ..Roofline::default() };
        let speed = DeviceRates { bytes: 4e10, weights: 6e10, step: 1e-6, round_trip: 1e-5 };
        let limits =
            Limits { device: "cpu".into(), name: "EPYC".into(), threads: Some(2), roofline, round_trip: None, speed };
        let text = table(&[limits]);
        assert!(text.contains("50.0") && text.contains("2000.0") && !text.contains("bf16"), "{text}");
        assert!(text.starts_with("cpu: EPYC\n"));
    }
}
