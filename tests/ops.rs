//! Every op against its f64 oracle: on the CPU with one thread and with several.

use wgpu_llm::base::{DType, Meta, View, ViewMut};
use wgpu_llm::cpu::ThreadPool;
use wgpu_llm::ops::{AnyOp, Case, Exact, Pool, Serial, nmse};

/// Runs one case on the CPU; gives the result as `f32`.
fn run_cpu(case: &Case<AnyOp>, inputs: &[Vec<u8>], dst: Meta, pool: &dyn Pool) -> Vec<f32> {
    let in_place = case.op.in_place();
    let mut out = match in_place {
        Some(i) => inputs[i].clone(),
        None => vec![0xffu8; dst.span_bytes()],
    };
    let mut views: Vec<View> = inputs.iter().zip(&case.src).map(|(bytes, s)| s.view(bytes)).collect();
    if let Some(i) = in_place {
        views[i].data = &[];
    }
    case.op.cpu(&views, ViewMut { meta: dst, data: &mut out }, pool);
    Exact::of(&View::new(dst, &out)).data.iter().map(|v| *v as f32).collect()
}

#[test]
fn cpu_ops_match_their_oracles() {
    let pool = ThreadPool::new(3);
    let (mut checked, mut failures) = (0, Vec::new());
    for (n, case) in AnyOp::cases().into_iter().enumerate() {
        let inputs: Vec<Vec<u8>> = case.src.iter().enumerate().map(|(i, s)| s.bytes((n * 16 + i) as u64)).collect();
        let metas: Vec<Meta> = case.src.iter().map(|s| s.meta).collect();
        let dst = case.op.infer(&metas).unwrap_or_else(|e| panic!("{:?}: {e}", case.op));
        let exact: Vec<Exact> = case.src.iter().zip(&inputs).map(|(s, b)| Exact::of(&s.view(b))).collect();
        let want = case.op.oracle(&exact);
        assert!(dst.dtype != DType::F16 || case.op.in_place().is_some());
        for pool in [&Serial as &dyn Pool, &pool] {
            let error = nmse(&run_cpu(&case, &inputs, dst, pool), &want);
            checked += 1;
            if error > case.nmse {
                let name = case.op.name();
                failures.push(format!("{name} {:?} on {metas:?}: nmse {error:.2e} > {:.0e}", case.op, case.nmse));
            }
        }
    }
    println!("cpu ops: {checked} runs of {} ops", AnyOp::NAMES.len());
    assert!(failures.is_empty(), "{} of {checked} runs fail:\n{}", failures.len(), failures.join("\n"));
}
