//! The GPU runner's promises: one submission per decoded token and nothing made for it, long work cut, memory within its
//! budget, failures told, weights larger than a binding.

#[path = "common/device.rs"]
mod device;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wgpu_llm::low_level::base::{DType, Error, ErrorKind, Meta, Result};
use wgpu_llm::low_level::cpu;
use wgpu_llm::low_level::gpu::roofline::{self, Limit};
use wgpu_llm::low_level::gpu::{Check, Device, Memory, Program, Source, Weights};
use wgpu_llm::low_level::graph::{Graph, Input, Place, Schedule, Tensor};
use wgpu_llm::low_level::ops::Input as Made;
use wgpu_llm::low_level::ops::{Add, AnyOp, Case, Fill, GetRows, MatMul, Random, RmsNorm, Serial, Stack, Unary};

struct Tensors(HashMap<String, Vec<u8>>);

impl Source for Tensors {
    fn read(&self, name: &str, at: u64, out: &mut [u8]) -> Result<()> {
        let bytes = self.0.get(name).ok_or_else(|| Error::usage(format!("no tensor {name}")))?;
        out.copy_from_slice(&bytes[at as usize..][..out.len()]);
        Ok(())
    }
}

impl cpu::WeightSource for Tensors {
    fn bytes(&self, name: &str) -> Result<Arc<dyn AsRef<[u8]> + Send + Sync>> {
        Ok(Arc::new(self.0[name].clone()))
    }
}

/// A little network of `layers`: x + w · norm(x), over `tokens` rows of `dim` from the input Rows.
struct Net {
    graph: Graph,
    tensors: Arc<Tensors>,
    output: Tensor,
    x: Vec<f32>,
}

fn net(tokens: usize, dim: usize, layers: usize) -> Net {
    let mut graph = Graph::new();
    let mut random = Random(7);
    let mut values = |n: usize| (0..n).map(|_| random.signed() * 0.1).collect::<Vec<f32>>();
    let mut tensors = HashMap::new();
    let mut x = graph.input(Input::Rows, Meta::f32([tokens, dim]));
    for layer in 0..layers {
        graph.set_layer(Some(layer as u32));
        let name = format!("w{layer}");
        let w = graph.weight(&name, Meta::f32([dim, dim]));
        tensors.insert(name, bytemuck::cast_slice(&values(dim * dim)).to_vec());
        let normed = graph.op("norm", RmsNorm { eps: 1e-5 }, &[x]).unwrap();
        let product = graph.op("product", MatMul, &[w, normed]).unwrap();
        x = graph.op("sum", Add { scale: 1.0 }, &[x, product]).unwrap();
    }
    graph.output = Some(x);
    Net { graph, tensors: Arc::new(Tensors(tensors)), output: x, x: values(tokens * dim) }
}

impl Net {
    fn nodes(&self) -> usize {
        self.graph.nodes.len()
    }

    /// All of it on the device.
    fn program(&self, device: &Device) -> Result<(Program, Memory)> {
        let mut memory = Memory::new(device, self.x.len());
        let mut weights = Weights::new(device, self.tensors.clone());
        let schedule = Schedule::single(&self.graph, Place::Gpu);
        let program = Program::new(device, &self.graph, 0..self.nodes(), &schedule, &mut memory, &mut weights)?;
        memory.write_input(Input::Rows, bytemuck::cast_slice(&self.x))?;
        Ok((program, memory))
    }

    /// The result on the CPU.
    fn want(&self) -> Vec<f32> {
        let mut memory = cpu::Memory::default();
        let schedule = Schedule::single(&self.graph, Place::Cpu);
        let mut program =
            cpu::Program::new(&self.graph, 0..self.nodes(), &schedule, &mut memory, &*self.tensors, &Serial).unwrap();
        let bytes: &[u8] = bytemuck::cast_slice(&self.x);
        memory.input(Input::Rows, bytes.len()).unwrap()[..bytes.len()].copy_from_slice(bytes);
        program.run(&self.graph, &mut memory, &cpu::ThreadPool::new(2), None);
        bytemuck::pod_collect_to_vec(&program.temp(self.output.buf, &memory)[..bytes.len()])
    }
}

fn close(got: &[u8], want: &[f32]) {
    let got: Vec<f32> = bytemuck::pod_collect_to_vec(got);
    let want: Vec<f64> = want.iter().map(|v| *v as f64).collect();
    let error = wgpu_llm::low_level::ops::nmse(&got[..want.len()], &want);
    assert!(error < 1e-9, "nmse {error:.2e}");
}

#[test]
fn a_decoded_token_is_one_submission_and_makes_nothing() {
    let Some(device) = device::open("a_decoded_token_is_one_submission_and_makes_nothing") else { return };
    let net = net(1, 64, 5);
    let (mut program, mut memory) = net.program(&device).unwrap();
    close(&program.run_read(&net.output).unwrap().wait().unwrap(), &net.want());
    let before = device.counters();
    for _ in 0..10 {
        memory.write_input(Input::Rows, bytemuck::cast_slice(&net.x)).unwrap();
        close(&program.run_read(&net.output).unwrap().wait().unwrap(), &net.want());
    }
    let after = device.counters();
    assert_eq!(after.submits - before.submits, 10);
    assert_eq!(after.dispatches - before.dispatches, 10 * program.dispatches() as u64);
    let made = |c: wgpu_llm::low_level::gpu::Counters| (c.buffers, c.bind_groups, c.pipelines, c.bytes);
    assert_eq!(made(after), made(before));
    println!("decode: 1 submission, {} dispatches, nothing made", program.dispatches());
}

#[test]
fn runs_may_be_ahead_of_their_readers() {
    let Some(device) = device::open("runs_may_be_ahead_of_their_readers") else { return };
    let net = net(1, 64, 2);
    let (mut program, mut memory) = net.program(&device).unwrap();
    let mut pending = Vec::new();
    for i in 0..4 {
        let x: Vec<f32> = net.x.iter().map(|v| v + i as f32).collect();
        memory.write_input(Input::Rows, bytemuck::cast_slice(&x)).unwrap();
        pending.push((x, program.run_read(&net.output).unwrap()));
    }
    for (x, pending) in pending {
        let net = Net { x, graph: net.graph.clone(), tensors: net.tensors.clone(), output: net.output };
        close(&pending.wait().unwrap(), &net.want());
    }
}

#[test]
fn long_work_is_cut_into_submissions() {
    let Some(device) = device::open("long_work_is_cut_into_submissions") else { return };
    // 12 layers of 512 tokens by 512² weights: 3.2 GFLOP, and as much again pretended by a graph of many more rows.
    let net = net(256, 256, 4);
    let (mut program, _memory) = net.program(&device).unwrap();
    assert_eq!(program.submissions(), 1, "a tenth of a GFLOP is no long work");
    close(&program.run_read(&net.output).unwrap().wait().unwrap(), &net.want());
    let mut graph = Graph::new();
    let w = graph.weight("w", Meta::f32([2048, 2048]));
    let x = graph.input(Input::Rows, Meta::f32([2048, 2048]));
    let mut y = x;
    for _ in 0..4 {
        y = graph.op("product", MatMul, &[w, y]).unwrap();
    }
    let tensors = Tensors(HashMap::from([("w".into(), vec![0; 4 << 22])]));
    let mut memory = Memory::new(&device, 2048 * 2048);
    let mut weights = Weights::new(&device, Arc::new(tensors));
    let schedule = Schedule::single(&graph, Place::Gpu);
    let program = Program::new(&device, &graph, 0..4, &schedule, &mut memory, &mut weights).unwrap();
    // 17 GFLOP each: more than two thirds of a submission on the slow GPU that is assumed is left for no second one.
    assert!(program.submissions() > 1, "{} submissions", program.submissions());
    assert!(program.longest_submission() <= 0.1, "{} s", program.longest_submission());
}

#[test]
fn one_long_product_is_cut_too() {
    let Some(device) = device::open("one_long_product_is_cut_too") else { return };
    let mut graph = Graph::new();
    // 69 GFLOP, nearly a quarter of a second on the slow GPU that is assumed.
    let w = graph.weight("w", Meta::f32([8192, 2048]));
    let x = graph.input(Input::Rows, Meta::f32([2048, 2048]));
    graph.op("product", MatMul, &[w, x]).unwrap();
    let tensors = Tensors(HashMap::from([("w".into(), vec![0; 8192 * 2048 * 4])]));
    let (mut memory, schedule) = (Memory::new(&device, 2048 * 2048), Schedule::single(&graph, Place::Gpu));
    let mut weights = Weights::new(&device, Arc::new(tensors));
    let program = Program::new(&device, &graph, 0..1, &schedule, &mut memory, &mut weights).unwrap();
    assert!(program.submissions() > 2 && program.longest_submission() <= 0.1, "{} s", program.longest_submission());
}

#[test]
fn a_product_in_pieces_gives_the_same() {
    let Some(mut device) = device::open("a_product_in_pieces_gives_the_same") else { return };
    device.restrict(|caps| caps.speed = 8e6);
    let long = |c: &Case<AnyOp>| matches!(c.op, AnyOp::Linear(_) | AnyOp::MatMulId(_) | AnyOp::Attention(_));
    for case in AnyOp::cases().into_iter().filter(long) {
        check(&device, &case);
    }
    let src = vec![Made::f32([300, 64]), Made::f32([40, 64])];
    let case: Case<AnyOp> = Case { op: MatMul.into(), src, nmse: 1e-10 };
    let metas: Vec<Meta> = case.src.iter().map(|s| s.meta).collect();
    let kernels = case.op.gpu(&metas, &Meta::f32([40, 300]), device.caps());
    assert_eq!(kernels[0].passes.len(), 3, "three pieces of two tiles of 64 rows");
    check(&device, &case);
}

#[test]
fn segments_share_their_temporaries_with_the_cpu() {
    let Some(device) = device::open("segments_share_their_temporaries_with_the_cpu") else { return };
    let net = net(3, 64, 6);
    for cut in [1, 7, net.nodes() - 1] {
        let schedule = Schedule::new(&net.graph, |i| if i < cut { Place::Cpu } else { Place::Gpu });
        let (mut here, mut there) = (cpu::Memory::default(), Memory::new(&device, net.x.len()));
        let mut weights = Weights::new(&device, net.tensors.clone());
        let mut first = cpu::Program::new(&net.graph, 0..cut, &schedule, &mut here, &*net.tensors, &Serial).unwrap();
        let mut second =
            Program::new(&device, &net.graph, cut..net.nodes(), &schedule, &mut there, &mut weights).unwrap();
        let bytes: &[u8] = bytemuck::cast_slice(&net.x);
        here.input(Input::Rows, bytes.len()).unwrap()[..bytes.len()].copy_from_slice(bytes);
        there.write_input(Input::Rows, bytes).unwrap();
        first.run(&net.graph, &mut here, &cpu::ThreadPool::new(2), None);
        for copy in &schedule.copies {
            let bytes =
                first.temp(copy.buf, &here)[..net.graph.buffers[copy.buf.0 as usize].meta.span_bytes()].to_vec();
            second.write_temp(copy.buf, &bytes).unwrap();
            assert_eq!(
                second.read_temp(&net.graph, copy.buf).unwrap().wait().unwrap(),
                bytes,
                "what was written is read"
            );
        }
        close(&second.run_read(&net.output).unwrap().wait().unwrap(), &net.want());
    }
}

#[test]
fn every_node_is_timed() {
    let Some(device) = device::open("every_node_is_timed") else { return };
    let net = net(2, 64, 3);
    let (mut program, _memory) = net.program(&device).unwrap();
    if !device.has_timestamps() {
        assert_eq!(program.profile().unwrap_err().kind(), ErrorKind::Unsupported);
        return;
    }
    let times = program.profile().unwrap();
    assert_eq!(times.iter().map(|t| t.node).collect::<Vec<_>>(), (0..net.nodes()).collect::<Vec<_>>());
    assert!(times.iter().all(|t| t.start <= t.end), "{times:?}");
    close(&program.read(&net.output).unwrap().wait().unwrap(), &net.want());
}

#[test]
fn what_passes_the_budget_is_refused_and_nothing_stays() {
    let Some(device) = device::open("what_passes_the_budget_is_refused_and_nothing_stays") else { return };
    let net = net(1, 512, 4);
    device.set_budget(3 << 20);
    let error = net.program(&device).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    let text = error.to_string();
    assert!(text.starts_with("tensor w2 needs 1024 KiB of GPU memory, ") && text.contains("-ngl"), "{text}");
    assert_eq!(device.counters().bytes, 0, "all that was uploaded is given back");
    device.set_budget(64 << 20);
    let (mut program, _memory) = net.program(&device).unwrap();
    close(&program.run_read(&net.output).unwrap().wait().unwrap(), &net.want());
    assert!(device.counters().bytes >= 4 << 20 && program.bytes() >= 4 << 20);
}

#[test]
fn a_lost_device_is_an_error_and_the_next_one_works() {
    let Some(device) = device::open("a_lost_device_is_an_error_and_the_next_one_works") else { return };
    let net = net(1, 64, 2);
    let (mut program, mut memory) = net.program(&device).unwrap();
    let pending = program.run_read(&net.output).unwrap();
    let begin = Instant::now();
    device.destroy();
    assert_eq!(pending.wait().map(|_| ()).unwrap_err().kind(), ErrorKind::DeviceLost);
    let error = program.run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceLost);
    assert!(error.to_string().contains("was lost"), "{error}");
    assert_eq!(program.run_read(&net.output).map(|_| ()).unwrap_err().kind(), ErrorKind::DeviceLost);
    assert_eq!(memory.read_input(Input::Rows, 4).map(|_| ()).unwrap_err().kind(), ErrorKind::DeviceLost);
    assert_eq!(net.program(&device).map(|_| ()).unwrap_err().kind(), ErrorKind::DeviceLost);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    let device = device::open("again").expect("there was one a moment ago");
    let (mut program, _memory) = net.program(&device).unwrap();
    close(&program.run_read(&net.output).unwrap().wait().unwrap(), &net.want());
}

#[test]
fn an_input_larger_than_the_memory_made_for_it_is_refused() {
    let Some(device) = device::open("an_input_larger_than_the_memory_made_for_it_is_refused") else { return };
    let mut memory = Memory::new(&device, 16);
    let error = memory.write_input(Input::Tokens, &[0; 4 * 17]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert_eq!(error.to_string(), "an input of 17 words in memory for 16; use smaller batches");
}

/// Checks all kernels of one case that fit it; gives their variants.
fn check(device: &Device, case: &Case<AnyOp>) -> Vec<&'static str> {
    let mut check = Check::new(device, case, 3).unwrap();
    let mut ran = Vec::new();
    for n in 0..check.kernels().len() {
        match check.run(n) {
            Ok(checked) => {
                ran.push(checked.variant);
                assert!(
                    checked.nmse <= case.nmse + checked.rounding,
                    "{:?} {}: nmse {:.2e}",
                    case.op,
                    checked.variant,
                    checked.nmse
                );
            }
            Err(e) if e.kind() == ErrorKind::Unsupported => {}
            Err(e) => panic!("{:?}: {e}", case.op),
        }
    }
    ran
}

#[test]
fn weights_in_many_shards_give_the_same() {
    let Some(mut device) = device::open("weights_in_many_shards_give_the_same") else { return };
    device.restrict(|caps| caps.max_binding = 20 << 10);
    let (mut cases, mut ran) = (0, Vec::new());
    for case in AnyOp::cases() {
        let weights = match &case.op {
            AnyOp::MatMul(_) | AnyOp::MatMulId(_) | AnyOp::GetRows(_) => 1,
            AnyOp::Linear(op) => op.parts,
            _ => 0,
        };
        let metas: Vec<Meta> = case.src[..weights].iter().map(|s| s.meta).collect();
        let cut = |meta: &Meta| wgpu_llm::low_level::ops::weight_shards(meta, device.caps()).len() > 1;
        let sharded = weights > 0 && cut(&Stack::meta(&metas));
        // Activations have no shards; they have to fit.
        let fits = case.src[weights..].iter().all(|s| s.meta.span_bytes() <= 16 << 10);
        if sharded && fits {
            cases += 1;
            ran.extend(check(&device, &case).into_iter().map(|variant| (case.op.name(), variant)));
        }
    }
    println!("shards: {cases} cases, {} runs with bindings of 20 KiB", ran.len());
    for kernel in [
        ("linear", "vec_shared_x4"),
        ("linear", "norm_tile_x4"),
        ("matmul", "vec_shared_x4"),
        ("matmul", "tile"),
        ("matmul_id", "vec_shared_x4"),
        ("get_rows", "weights"),
    ] {
        assert!(ran.contains(&kernel), "{kernel:?} did not run");
    }
    assert!(ran.iter().any(|(op, variant)| *op == "matmul_id" && variant.starts_with("tile")));
}

#[test]
fn a_weight_larger_than_a_binding_is_cut() {
    let Some(mut device) = device::open("a_weight_larger_than_a_binding_is_cut") else { return };
    // What the least of devices can bind; lavapipe can bind no more either.
    device.restrict(|caps| caps.max_binding = caps.max_binding.min(128 << 20));
    let (rows, k) = (72_000, 512);
    let w = Made::uniform(Meta::new(DType::F32, [rows, k]));
    let bytes = w.meta.span_bytes();
    assert!(bytes > 128 << 20 && wgpu_llm::low_level::ops::weight_shards(&w.meta, device.caps()).len() == 2);
    let src = vec![w.clone(), Made::f32([1, k]), Made::f32([rows])];
    let product = Case { op: MatMul.into(), src, nmse: 1e-10 };
    let ids = Made::filled(Meta::new(DType::U32, [9]), Fill::Below(rows as u32));
    let lookup = Case { op: GetRows { scale: 1.0 }.into(), src: vec![w, ids], nmse: 1e-13 };
    let (products, lookups) = (check(&device, &product).len(), check(&device, &lookup).len());
    println!("a weight of {} MiB in bindings of 128 MiB: {} runs", bytes >> 20, products + lookups);
    assert!(products >= 2 && lookups >= 1);
}

#[test]
fn tensors_that_no_kernel_can_bind_are_refused() {
    let Some(mut device) = device::open("tensors_that_no_kernel_can_bind_are_refused") else { return };
    device.restrict(|caps| caps.max_binding = 4 << 10);
    let x = Made::f32([16, 128]);
    let case = Case { op: Unary::Scale(2.0).into(), src: vec![x], nmse: 0.0 };
    let error = Check::new(&device, &case, 1).unwrap().run(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("x takes 8 KiB, 4 KiB can be bound"), "{error}");
}

#[test]
fn the_roofline_is_measured_and_leaves_no_memory_behind() {
    let Some(device) = device::open("the_roofline_is_measured_and_leaves_no_memory_behind") else { return };
    let bytes = device.counters().bytes;
    for limit in Limit::ALL {
        let lacks = match limit {
            Limit::F16 => !device.caps().f16,
            Limit::Matrix => device.caps().coop.is_none(),
            _ => false,
        };
        let rate = roofline::measure(&device, limit).unwrap_or_else(|e| panic!("{limit:?}: {e}"));
        assert_eq!(rate.is_none(), lacks, "{limit:?}");
        assert!(rate.is_none_or(|r| r > 0.0 && r.is_finite()), "{limit:?}: {rate:?}");
    }
    assert_eq!(device.counters().bytes, bytes);
}
