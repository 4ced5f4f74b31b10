//! One result: what was measured, on what, and how fast it was.

use super::args::{Setting, Test};
use super::peak::{Least, Need};
use crate::plan::fit::Layers;
use crate::profile::Profile;
use serde_json::{Value as Json, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a model is called and how large it is.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFacts {
    /// Its path, or the name of what was made up.
    pub file: String,
    /// In words: `llama 1.04 B Q4_0`.
    pub kind: String,
    /// Bytes of its tensors.
    pub bytes: u64,
    /// Its weights.
    pub weights: u64,
    /// How long it took to open.
    pub load: Duration,
}

/// Where it ran.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceFacts {
    /// `CPU`, or the GPU's interface: `vulkan`.
    pub backend: String,
    /// The processor.
    pub cpu: String,
    /// The GPU, if one took part.
    pub gpu: String,
    /// CPU threads.
    pub threads: u32,
    /// The CPU's instructions that are used: `avx2`.
    pub simd: &'static str,
    /// Bits of a prompt's activations on the CPU.
    pub activation_bits: u32,
    /// Bits of an answer's activations.
    pub answer_bits: u32,
}

/// One result.
#[derive(Debug, Clone)]
pub struct Row {
    /// The model.
    pub model: ModelFacts,
    /// The device.
    pub device: DeviceFacts,
    /// The setting.
    pub setting: Setting,
    /// The test.
    pub test: Test,
    /// When it began.
    pub time: SystemTime,
    /// How long each repetition took.
    pub samples: Vec<Duration>,
    /// What a token takes at the least.
    pub need: Need,
    /// Dispatches of the GPU, or ops of the CPU, for each token.
    pub dispatches: f64,
    /// What one more run spent in each kernel.
    pub kernels: Option<Profile>,
}

/// Mean and standard deviation of a sample.
fn statistics(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean, variance.sqrt())
}

impl Row {
    /// llama-bench's name of the test.
    pub fn name(&self) -> String {
        self.test.name(self.setting.depth)
    }

    /// Tokens per second of each repetition.
    fn speeds(&self) -> Vec<f64> {
        self.samples.iter().map(|t| f64::from(self.test.tokens()) / t.as_secs_f64()).collect()
    }

    /// Tokens per second: mean and standard deviation.
    pub fn speed(&self) -> (f64, f64) {
        statistics(&self.speeds())
    }

    /// Bytes per second, each byte that is needed counting once.
    pub fn rate(&self) -> f64 {
        self.need.bytes * self.speed().0
    }

    /// Part of the device's measured best that is reached, and what that is bound by.
    pub fn of_peak(&self) -> Option<(f64, &'static str)> {
        self.need.least.map(|least| (least.both * self.speed().0, least.bound()))
    }

    /// Everything by name, llama-bench's names first, as far as they mean something here.
    pub fn fields(&self) -> Vec<(&'static str, Json)> {
        let nanoseconds: Vec<f64> = self.samples.iter().map(|t| t.as_nanos() as f64).collect();
        let ((ns, ns_sd), (ts, ts_sd)) = (statistics(&nanoseconds), self.speed());
        let (m, d, s, t) = (&self.model, &self.device, &self.setting, &self.test);
        let of_least = |f: &dyn Fn(Least) -> Json| self.need.least.map_or(Json::Null, f);
        vec![
            ("build_commit", concat!("wgpu-llm ", env!("CARGO_PKG_VERSION")).into()),
            ("build_number", 0.into()),
            ("cpu_info", d.cpu.clone().into()),
            ("gpu_info", d.gpu.clone().into()),
            ("backends", d.backend.clone().into()),
            ("model_filename", m.file.clone().into()),
            ("model_type", m.kind.clone().into()),
            ("model_size", m.bytes.into()),
            ("model_n_params", m.weights.into()),
            ("n_batch", s.batch.into()),
            ("n_ubatch", s.ubatch.into()),
            ("n_threads", d.threads.into()),
            ("simd", d.simd.into()),
            ("activation_bits", d.activation_bits.into()),
            ("answer_bits", d.answer_bits.into()),
            ("type_k", s.kv.keys.name().into()),
            ("type_v", s.kv.values.name().into()),
            ("n_gpu_layers", layers(s.layers).into()),
            ("flash_attn", true.into()),
            ("n_prompt", t.prompt.into()),
            ("n_gen", t.answer.into()),
            ("n_depth", s.depth.into()),
            ("test_time", utc(self.time).into()),
            ("avg_ns", (ns.round() as u64).into()),
            ("stddev_ns", (ns_sd.round() as u64).into()),
            ("avg_ts", ts.into()),
            ("stddev_ts", ts_sd.into()),
            ("test", self.name().into()),
            ("load_ns", (m.load.as_nanos() as u64).into()),
            ("bytes_per_token", self.need.bytes.into()),
            ("bytes_per_second", self.rate().into()),
            ("bandwidth_fraction", of_least(&|l| (l.memory * ts).into())),
            ("operations_per_token", self.need.operations.into()),
            ("operations_per_second", (self.need.operations * ts).into()),
            ("arithmetic_fraction", of_least(&|l| (l.arithmetic * ts).into())),
            ("peak_fraction", of_least(&|l| (l.both * ts).into())),
            ("peak_of", of_least(&|l| l.bound().into())),
            ("device_bytes_per_second", of_least(&|l| (self.need.bytes / l.memory).into())),
            ("device_operations_per_second", of_least(&|l| (self.need.operations / l.arithmetic).into())),
            ("dispatches_per_token", self.dispatches.into()),
        ]
    }

    /// The same as a JSON object, with what does not fit a table: each repetition, and the kernels.
    pub fn to_json(&self) -> Json {
        let mut row: serde_json::Map<String, Json> = self.fields().into_iter().map(|(k, v)| (k.into(), v)).collect();
        row.insert("samples_ns".into(), self.samples.iter().map(|t| t.as_nanos() as u64).collect());
        row.insert("samples_ts".into(), self.speeds().into());
        if let Some(profile) = &self.kernels {
            let tokens = f64::from(self.test.tokens());
            let kernels = super::kernels::totals(profile);
            let kernel = |(name, k): &(String, crate::profile::statistics::Total)| {
                json!({
                    "kernel": name, "runs_per_token": k.count as f64 / tokens, "ns_per_token": k.total as f64 / tokens,
                    "fraction": k.fraction, "weight_bytes_per_second": k.weight_rate(),
                })
            };
            row.insert("kernels".into(), kernels.iter().map(kernel).collect());
        }
        row.into()
    }
}

/// As llama-bench counts: −1 for as many as fit.
pub fn layers(layers: Layers) -> i64 {
    match layers {
        Layers::Auto => -1,
        Layers::All => 999,
        Layers::Count(n) => n as i64,
    }
}

/// `2026-11-25T12:00:00Z`. Source of the calendar: Howard Hinnant, "chrono-compatible low-level date algorithms".
fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    // Years begin in March, so that leap days come last.
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{:02}Z", year + era * 400 + carry, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right() {
        let at = |seconds| utc(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_735_689_599), "2024-12-31T23:59:59Z");
    }

    #[test]
    fn the_deviation_is_that_of_a_sample() {
        let (mean, deviation) = statistics(&[1.0, 2.0, 3.0]);
        assert_eq!((mean, deviation), (2.0, 1.0));
        assert_eq!(statistics(&[5.0]), (5.0, 0.0));
    }
}
