//! Every op, every kernel of it, against its f64 oracle on a wgpu device; with tensors at several places of their buffers.
//!
//! Without an adapter this says so and passes, unless WGPU_LLM_GPU=require. WGPU_LLM_OP=name picks one op.

#[path = "common/device.rs"]
mod device;

use std::collections::BTreeMap;
use wgpu_llm::low_level::base::{ErrorKind, Meta};
use wgpu_llm::low_level::gpu::{Check, Checked, Device};
use wgpu_llm::low_level::ops::{AnyOp, Case, Fill, Input};

/// The case with its sources `by` elements further into their buffers, where that leaves it the same case: weights in
/// blocks are whole, and positions and parameters are counted from the buffer's start.
fn moved(case: &Case<AnyOp>, by: usize) -> Case<AnyOp> {
    let weights = match &case.op {
        AnyOp::MatMul(_) | AnyOp::MatMulId(_) => 1,
        AnyOp::Linear(op) => op.parts,
        _ => 0,
    };
    let shift = |(i, s): (usize, &Input)| {
        let (fixed, fill) = match s.fill {
            Fill::Count(start) => ((start as usize) < by, Fill::Count(start.saturating_sub(by as u32))),
            Fill::Words(words) => (!by.is_multiple_of(words.len()), s.fill),
            _ => (i < weights || s.meta.dtype.is_quantized(), s.fill),
        };
        if fixed { s.clone() } else { Input { offset: s.offset + by, fill, ..s.clone() } }
    };
    Case { src: case.src.iter().enumerate().map(shift).collect(), ..case.clone() }
}

/// Runs all kernels of all cases with their tensors at each of `places` in their buffers.
fn run_all(device: &Device, places: &[usize]) {
    let only = std::env::var("WGPU_LLM_OP").ok();
    let wanted = |name: &str| only.as_ref().is_none_or(|op| op == name);
    let mut ran: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let (mut runs, mut unfit, mut exact, mut failures) = (0, 0, 0, Vec::new());
    for (c, case) in AnyOp::cases().into_iter().enumerate().filter(|(_, case)| wanted(case.op.name())) {
        for by in places.iter().copied() {
            let case = moved(&case, by);
            let src: Vec<Meta> = case.src.iter().map(|s| s.meta).collect();
            let mut check = Check::new(device, &case, c as u64 * 16).expect("cases are well formed");
            for n in 0..check.kernels().len() {
                match check.run(n) {
                    Ok(Checked { variant, nmse, mut rounding }) => {
                        // Products in bytes of what bytes hold exactly are exact: then nothing is left to hide a fault behind.
                        if variant.contains("int8") && case.src.iter().any(|s| matches!(s.fill, Fill::Outliers(_))) {
                            rounding = 0.0;
                            exact += 1;
                        }
                        runs += 1;
                        *ran.entry((case.op.name(), variant)).or_default() += 1;
                        if nmse > case.nmse + rounding {
                            let op = &case.op;
                            failures
                                .push(format!("{op:?} {variant} on {src:?} + {by}: {nmse:.2e} > {:.0e}", case.nmse));
                        }
                    }
                    Err(e) if e.kind() == ErrorKind::Unsupported && by != 0 => unfit += 1,
                    Err(e) => failures.push(format!("{:?} kernel {n}: {e}", case.op)),
                }
            }
        }
    }
    println!("gpu ops on {}: {runs} runs, {} kernels, {unfit} do not fit", device.info().name, ran.len());
    ran.iter().for_each(|((op, variant), n)| println!("  {op} {variant}: {n}"));
    assert!(failures.is_empty(), "{} of {runs} runs fail:\n{}", failures.len(), failures.join("\n"));
    let linear = wanted("linear") && device.caps().dot4;
    assert!(!linear || exact > 0, "no product in bytes ran");
    for name in AnyOp::NAMES.iter().filter(|name| wanted(name)) {
        assert!(ran.keys().any(|(op, _)| op == name), "{name} has no kernel");
    }
}

#[test]
fn gpu_kernels_match_their_oracles() {
    let Some(device) = device::open("gpu_kernels_match_their_oracles") else { return };
    run_all(&device, &[0, 128, 7]);
}

#[test]
fn gpu_kernels_need_no_bounds_checks() {
    let Some(mut device) = device::open("gpu_kernels_need_no_bounds_checks") else { return };
    device.trust_shaders();
    run_all(&device, &[0]);
}
