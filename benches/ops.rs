//! Every op's cases on the CPU: `cargo bench --bench ops -- matmul`. Figures mean something only beside others of the same run.

use criterion::{Criterion, criterion_group, criterion_main};
use wgpu_llm::base::{Meta, View, ViewMut};
use wgpu_llm::cpu::ThreadPool;
use wgpu_llm::ops::AnyOp;

fn ops(c: &mut Criterion) {
    let pool = ThreadPool::per_core();
    for (n, case) in AnyOp::cases().into_iter().enumerate() {
        let inputs: Vec<Vec<u8>> = case.src.iter().enumerate().map(|(i, s)| s.bytes((n * 16 + i) as u64)).collect();
        let metas: Vec<Meta> = case.src.iter().map(|s| s.meta).collect();
        let dst = case.op.infer(&metas).expect("cases are valid");
        let mut out = match case.op.in_place() {
            Some(i) => inputs[i].clone(),
            None => vec![0; dst.span_bytes()],
        };
        let mut views: Vec<View> = inputs.iter().zip(&case.src).map(|(bytes, s)| s.view(bytes)).collect();
        let mut updated: Vec<(Meta, Vec<u8>)> = case.op.updates().map(|i| (metas[i], inputs[i].clone())).collect();
        case.op.written().for_each(|i| views[i].data = &[]);
        let name = format!("{}/{n} {:?} {metas:?}", case.op.name(), case.op);
        c.bench_function(&name, |b| {
            b.iter(|| {
                let mut more: Vec<ViewMut> =
                    updated.iter_mut().map(|(meta, data)| ViewMut { meta: *meta, data }).collect();
                case.op.cpu(&views, ViewMut { meta: dst, data: &mut out }, &mut more, &pool);
            });
        });
    }
}

criterion_group!(benches, ops);
criterion_main!(benches);
