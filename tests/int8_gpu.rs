//! How a GPU rounds activations for products of bytes, value by value: products with a diagonal of 127 return them.

#[path = "common/device.rs"]
mod device;

use std::collections::HashMap;
use std::sync::Arc;
use wgpu_llm::low_level::base::{DType, Error, Meta, Result};
use wgpu_llm::low_level::gpu::{Device, Memory, Program, Source, Weights, probe};
use wgpu_llm::low_level::graph::{Graph, Input, Place, Schedule};
use wgpu_llm::low_level::ops::{Kernel, Linear, PreNorm, Random};
use wgpu_llm::low_level::quant::{self, Precision};

/// Rows and columns of the weights: several blocks of 32.
const N: usize = 256;
/// Where each token has its outlier.
const OUTLIER: usize = 77;

struct Diagonal(Vec<u8>);

impl Source for Diagonal {
    fn read(&self, name: &str, at: u64, out: &mut [u8]) -> Result<()> {
        let from = (name == "w").then_some(&self.0[at as usize..]).ok_or_else(|| Error::usage("no such tensor"))?;
        out.copy_from_slice(&from[..out.len()]);
        Ok(())
    }
}

/// Weights that are zero but on the diagonal, and what is there. Q6_K's words are laid out otherwise than Q8_0's.
fn diagonal(dtype: DType) -> (Diagonal, f32) {
    let value = if dtype == DType::Q8_0 { 127.0 } else { 124.0 };
    let w: Vec<f32> = (0..N * N).map(|i| if i / N == i % N { value } else { 0.0 }).collect();
    let mut bytes = vec![0; dtype.row_bytes(N * N).expect("whole blocks")];
    quant::encode(dtype, &w, N, &mut bytes);
    let mut back = vec![0.0; N * N];
    quant::decode(dtype, &bytes, &mut back);
    let kept = back[0];
    for (i, v) in back.iter().enumerate() {
        assert_eq!(*v, if i / N == i % N { kept } else { 0.0 }, "{dtype}, weight {i}");
    }
    (Diagonal(bytes), kept)
}

/// What rows `x` are for products with weights of `dtype`, by the kernel called `variant`; `None` if the device has no such kernel.
fn rounded(device: &Device, dtype: DType, variant: &str, x: &[f32], norm: Option<PreNorm>) -> Option<Vec<f32>> {
    let (weights, value) = diagonal(dtype);
    let mut graph = Graph::new();
    let input = graph.input(Input::Rows, Meta::f32([x.len() / N, N]));
    let w = graph.weight("w", Meta::new(dtype, [N, N]));
    let op = Linear { norm, precision: Precision::Eight, ..Linear::alone(false, false, x.len() / N) };
    let y = graph.op("product", op, &[w, input]).expect("shapes fit");
    graph.output = Some(y);
    let node = &graph.nodes[0];
    let kernels = node.op.gpu(&[w.meta, input.meta], &y.meta, device.caps());
    kernels.iter().find(|kernel| kernel.variant == variant)?;
    let mut memory = Memory::new(device, x.len());
    let mut weights = Weights::new(device, Arc::new(weights));
    let schedule = Schedule::single(&graph, Place::Gpu);
    let only = |_, kernels: Vec<Kernel>| kernels.into_iter().filter(|k| k.variant == variant).collect();
    let program = Program::with_kernels(device, &graph, 0..1, &schedule, &mut memory, &mut weights, &only);
    let mut program = pollster::block_on(program).expect("a program");
    memory.write_input(Input::Rows, bytemuck::cast_slice(x)).expect("as large as that");
    let bytes = program.run_read(&y).and_then(|pending| pending.wait()).expect("a result");
    let y: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes[..4 * x.len()]);
    Some(y.into_iter().map(|v| v / value).collect())
}

#[test]
fn activations_are_rounded_as_far_as_is_said() {
    let test = "activations_are_rounded_as_far_as_is_said";
    let Some(device) = device::open(test) else { return };
    if !device.caps().dot4 {
        println!("{test}: skipped, {} has no products of bytes", device.info().name);
        return;
    }
    let mut random = Random(11);
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for tokens in [1, 3, 40] {
        let mut x: Vec<f32> = (0..tokens * N).map(|_| random.signed()).collect();
        for row in x.chunks_exact_mut(N) {
            row[OUTLIER] = 40.3;
            // A block of nothing.
            row[96..128].fill(0.0);
        }
        let norms = [None, Some(PreNorm::Rms { eps: 1e-5, params: 0 })];
        for (norm, dtype) in norms.into_iter().flat_map(|norm| [(norm, DType::Q8_0), (norm, DType::Q6_K)]) {
            for variant in ["vec_int8_subgroups", "vec_int8_shared", "tile_int8"] {
                let Some(got) = rounded(&device, dtype, variant, &x, norm) else { continue };
                *seen.entry(variant).or_default() += 1;
                check(&format!("{variant} {dtype} {tokens} {norm:?}"), &x, &got, norm.is_some());
            }
        }
    }
    // Two numbers of tokens that are few, one that is many; two formats, with and without a norm.
    assert_eq!((seen["vec_int8_shared"], seen["tile_int8"]), (8, 4), "{seen:?}");
    assert_eq!(seen.get("vec_int8_subgroups").copied(), device.caps().subgroups.map(|_| 8), "{seen:?}");
}

/// Ordinary blocks keep eight bits, those with an outlier sixteen.
fn check(what: &str, x: &[f32], got: &[f32], normed: bool) {
    let mut rounding = 0f64;
    for (row, got) in x.chunks_exact(N).zip(got.chunks_exact(N)) {
        let square = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / N as f64;
        let factor = if normed { 1.0 / (square + 1e-5).sqrt() } else { 1.0 };
        for (block, (x, got)) in row.chunks_exact(32).zip(got.chunks_exact(32)).enumerate() {
            let largest = x.iter().fold(0f64, |m, v| m.max(f64::from(v.abs()))) * factor;
            let step = largest / 127.0;
            // Half a step; of the second byte a whole one, since 128 of them would be out of range.
            let bound = if block == OUTLIER / 32 { step / 256.0 } else { step / 2.0 } * 1.004 + 1e-6 * largest;
            for (i, (x, got)) in x.iter().zip(got).enumerate() {
                let error = (f64::from(*x) * factor - f64::from(*got)).abs();
                assert!(error <= bound, "{what}, value {}: {got} for {x}, {error:e} above {bound:e}", 32 * block + i);
                if block != OUTLIER / 32 {
                    rounding = rounding.max(error / step.max(1e-30));
                }
            }
        }
    }
    assert!(rounding > 0.45, "{what}: {rounding} of a step: are they rounded at all?");
}

#[test]
fn a_device_tells_the_size_of_its_subgroups() {
    let Some(device) = device::open("a_device_tells_the_size_of_its_subgroups") else { return };
    let Some((smallest, largest)) = device.caps().subgroups else { return };
    let size = pollster::block_on(probe::subgroup_size(&device));
    // A device with a range may mix sizes, or take another for each kernel.
    assert!(size.is_some() || smallest < largest, "{smallest} to {largest}");
    assert!(size.is_none_or(|size| (smallest..=largest).contains(&size)), "{size:?} of {smallest} to {largest}");
}
