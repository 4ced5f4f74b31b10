//! Every op, every kernel of it, against its f64 oracle on a wgpu device; with tensors at several places of their buffers.
//!
//! Without an adapter this says so and passes, unless WGPU_LLM_GPU=require. WGPU_LLM_OP=name picks one op.

#[path = "common/device.rs"]
mod device;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use wgpu_llm::base::{Error, ErrorKind, Meta, Result, View};
use wgpu_llm::gpu::{Device, Memory, Program, Source, Weights};
use wgpu_llm::graph::{Cache, CachePart, Graph, Place, Plan, Tensor};
use wgpu_llm::ops::{AnyOp, Case, Exact, Fill, Input, nmse};

struct Tensors(HashMap<String, Vec<u8>>);

impl Source for Tensors {
    fn read(&self, name: &str, at: u64, out: &mut [u8]) -> Result<()> {
        let bytes = self.0.get(name).ok_or_else(|| Error::usage(format!("no tensor {name}")))?;
        out.copy_from_slice(&bytes[at as usize..][..out.len()]);
        Ok(())
    }
}

/// A case as a graph of one node: sources are weights, but for the one that is updated in place, which is a cache.
struct Bench {
    graph: Graph,
    cache: Option<(Cache, Vec<u8>)>,
    weights: Weights,
    want: Vec<f64>,
}

const CACHE: Cache = Cache { layer: 0, part: CachePart::Key };

impl Bench {
    fn new(device: &Device, case: &Case<AnyOp>, seed: u64) -> Bench {
        let mut graph = Graph::new();
        let (mut tensors, mut src, mut exact, mut cache) = (HashMap::new(), Vec::new(), Vec::new(), None);
        for (i, input) in case.src.iter().enumerate() {
            let bytes = input.bytes(seed + i as u64);
            exact.push(Exact::of(&input.view(&bytes)));
            let whole = match input.offset == 0 && input.meta.is_packed() {
                true => input.meta,
                false => Meta::new(input.meta.dtype, [bytes.len() / input.meta.dtype.block_bytes()]),
            };
            let at = match case.op.in_place() == Some(i) {
                true => graph.cache(CACHE, whole),
                false => graph.weight(&format!("src{i}"), whole),
            };
            src.push(Tensor { meta: input.meta, offset: input.offset, ..at });
            match case.op.in_place() == Some(i) {
                true => cache = Some((CACHE, bytes)),
                false => drop(tensors.insert(format!("src{i}"), bytes)),
            }
        }
        graph.output = Some(graph.op("case", case.op.clone(), &src).expect("cases are well formed"));
        let weights = Weights::new(device, Arc::new(Tensors(tensors)));
        Bench { graph, cache, weights, want: case.op.oracle(&exact) }
    }

    /// Runs kernel number `n` of the node; gives its variant and its error against the oracle.
    fn run(&mut self, device: &Device, n: usize) -> Result<(&'static str, f64)> {
        let (graph, output) = (&self.graph, self.graph.output.expect("set"));
        let plan = Plan::single(graph, Place::Gpu);
        let mut memory = Memory::new(device, 64);
        let choose = |_: usize, kernels: Vec<_>| kernels.into_iter().skip(n).take(1).collect();
        let mut program = pollster::block_on(Program::new_async(
            device,
            graph,
            0..1,
            &plan,
            &mut memory,
            &mut self.weights,
            &choose,
        ))?;
        match &self.cache {
            Some((cache, bytes)) => memory.write_cache(*cache, 0, bytes)?,
            // NaNs, so that what is not written is noticed.
            None => program.write_temp(output.buf, &vec![0xff; output.meta.span_bytes().next_multiple_of(4)])?,
        }
        let bytes = program.run_read(&output)?.wait()?;
        let got = Exact::of(&View::new(output.meta, &bytes)).data;
        let got: Vec<f32> = got.iter().map(|v| *v as f32).collect();
        Ok((program.kernels()[0].2, nmse(&got, &self.want)))
    }
}

/// How many kernels a case has.
fn kernels(device: &Device, case: &Case<AnyOp>) -> usize {
    let src: Vec<Meta> = case.src.iter().map(|s| s.meta).collect();
    let dst = case.op.infer(&src).expect("cases are well formed");
    case.op.gpu(&src, &dst, device.caps()).len()
}

/// The case with its sources `by` elements further into their buffers, where that leaves it the same case: weights in
/// blocks are whole, and positions and parameters are counted from the buffer's start.
fn moved(case: &Case<AnyOp>, by: usize) -> Case<AnyOp> {
    let weight = |i: usize| i == 0 && matches!(case.op, AnyOp::MatMul(_) | AnyOp::MatMulId(_));
    let shift = |(i, s): (usize, &Input)| {
        let (fixed, fill) = match s.fill {
            Fill::Count(start) => ((start as usize) < by, Fill::Count(start.saturating_sub(by as u32))),
            Fill::Words(words) => (!by.is_multiple_of(words.len()), s.fill),
            _ => (weight(i) || s.meta.dtype.is_quantized(), s.fill),
        };
        if fixed { s.clone() } else { Input { offset: s.offset + by, fill, ..s.clone() } }
    };
    Case { src: case.src.iter().enumerate().map(shift).collect(), ..case.clone() }
}

#[test]
fn gpu_kernels_match_their_oracles() {
    let Some(device) = device::open("gpu_kernels_match_their_oracles") else { return };
    let mut ran: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let (mut runs, mut unfit, mut failures) = (0, 0, Vec::new());
    let only = std::env::var("WGPU_LLM_OP").ok();
    for (c, case) in AnyOp::cases().into_iter().enumerate() {
        if only.as_ref().is_some_and(|op| op != case.op.name()) {
            continue;
        }
        for by in [0, 128, 7] {
            let case = moved(&case, by);
            let mut bench = Bench::new(&device, &case, c as u64 * 16);
            for n in 0..kernels(&device, &case) {
                match bench.run(&device, n) {
                    Ok((variant, error)) => {
                        runs += 1;
                        *ran.entry((case.op.name(), variant)).or_default() += 1;
                        if error > case.nmse {
                            let src: Vec<Meta> = case.src.iter().map(|s| s.meta).collect();
                            failures.push(format!(
                                "{:?} {variant} on {src:?} + {by}: nmse {error:.2e} > {:.0e}",
                                case.op, case.nmse
                            ));
                        }
                    }
                    // Kernels that read four values at a time want them aligned; tables at an offset are no whole weights.
                    Err(e) if e.kind() == ErrorKind::Unsupported && by != 0 => unfit += 1,
                    Err(e) => failures.push(format!("{:?} kernel {n}: {e}", case.op)),
                }
            }
        }
    }
    println!("gpu ops on {}: {runs} runs, {} kernels, {unfit} do not fit", device.info().name, ran.len());
    ran.iter().for_each(|((op, variant), n)| println!("  {op} {variant}: {n}"));
    assert!(failures.is_empty(), "{} of {runs} runs fail:\n{}", failures.len(), failures.join("\n"));
    for name in AnyOp::NAMES.iter().filter(|name| only.as_ref().is_none_or(|op| op == *name)) {
        assert!(ran.keys().any(|(op, _)| op == name), "{name} has no kernel");
    }
}
