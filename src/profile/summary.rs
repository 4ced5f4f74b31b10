//! A profile in a few kilobytes, for bug reports: devices, placement, tokens and kernels. No prompt, no answer, no file's name.

use super::record::{Profile, VERSION};
use super::statistics::{Group, Phase, Tokens, Total, tokens, totals};
use serde_json::{Value, json};

/// The summary.
pub fn to_json(profile: &Profile) -> Value {
    let memory = profile.memory().into_iter().map(
        |m| json!({"device": m.device, "bytes": m.bytes(), "weights": m.weights, "cache": m.cache, "other": m.other}),
    );
    json!({
        "version": VERSION,
        "program": concat!("wgpu-llm ", env!("CARGO_PKG_VERSION")),
        "session": profile.facts,
        "memory": memory.collect::<Vec<_>>(),
        "prompt": phase(profile, Phase::Prompt),
        "answer": phase(profile, Phase::Answer),
    })
}

fn phase(profile: &Profile, phase: Phase) -> Value {
    let Tokens { runs, tokens: n, mean, p95, gpu, cpu, submit, wait, readback } = tokens(profile, phase);
    let layers = totals(profile, Group::Layer, phase);
    let kernels = totals(profile, Group::Kernel, phase).into_iter().map(|t| kernel(profile, &t, &layers));
    json!({
        "runs": runs,
        "tokens": n,
        "tokens_per_second": tokens(profile, phase).rate(),
        "ns": {
            "mean": mean, "p95": p95, "gpu": gpu, "cpu": cpu, "submit": submit, "wait": wait, "readback": readback,
        },
        "kernels": kernels.collect::<Vec<_>>(),
    })
}

fn kernel(profile: &Profile, t: &Total, layers: &[Total]) -> Value {
    let kernel = &profile.kernels[t.kernel];
    let mut layers: Vec<&Total> = layers.iter().filter(|l| l.name == t.name && l.layer.is_some()).collect();
    layers.sort_by_key(|l| l.layer);
    json!({
        "kernel": t.name,
        "device": kernel.device,
        "shader": kernel.shader,
        "src": kernel.src,
        "dst": kernel.dst,
        "count": t.count,
        "total_ns": t.total,
        "mean_ns": t.mean(),
        "p95_ns": t.p95,
        "fraction": t.fraction,
        "bytes_per_second": t.rate(),
        "operations_per_second": t.flop_rate(),
        "of_roofline": t.of_peak,
        "memory_bound": t.memory_bound,
        "layers": layers.iter().map(|l| json!([l.layer, l.count, l.total, l.p95])).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_tells_devices_tokens_and_kernels() {
        let profile = crate::profile::chrome::tests::profile();
        let summary = to_json(&profile);
        assert_eq!((&summary["version"], &summary["answer"]["runs"]), (&json!(1), &json!(2)));
        assert_eq!(summary["answer"]["kernels"][0]["kernel"], "matmul/ x");
        assert_eq!(summary["answer"]["kernels"][0]["count"], 2);
        assert_eq!(summary["answer"]["ns"]["mean"], 2e6);
        assert_eq!(summary["memory"][0]["bytes"], 35);
        assert_eq!(summary["prompt"]["kernels"], json!([]));
    }
}
