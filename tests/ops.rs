//! Every op against its f64 oracle: on the CPU with one thread and with several.

use wgpu_llm::low_level::base::DType;
use wgpu_llm::low_level::cpu::ThreadPool;
use wgpu_llm::low_level::ops::{AnyOp, Serial, Threads};
use wgpu_llm::low_level::run::selftest::{Trial, describe};
use wgpu_llm::low_level::simd::Level;

#[test]
fn cpu_ops_match_their_oracles() {
    let pool = ThreadPool::new(3);
    let (mut checked, mut failures) = (0, Vec::new());
    for (n, case) in AnyOp::cases().into_iter().enumerate() {
        let trial = Trial::new(case, n as u64 * 16);
        let case = trial.case();
        assert!(trial.result().dtype != DType::F16 || case.op.in_place().is_some());
        for pool in [&Serial as &dyn Threads, &pool] {
            let error = trial.run(pool);
            checked += 1;
            if error > case.nmse {
                failures.push(format!("{}: nmse {error:.2e} > {:.0e}", describe(case), case.nmse));
            }
        }
    }
    println!("cpu ops: {checked} runs of {} ops at {}", AnyOp::NAMES.len(), Level::best().name());
    assert!(failures.is_empty(), "{} of {checked} runs fail:\n{}", failures.len(), failures.join("\n"));
}
