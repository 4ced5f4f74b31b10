//! Where the time of an answer goes: `cargo run --release --example profile -- model.gguf`

use std::sync::Arc;
use wgpu_llm::low_level::gpu::{Device, Selector};
use wgpu_llm::low_level::model::Model;
use wgpu_llm::low_level::plan::Options;
use wgpu_llm::low_level::profile::statistics::{Group, Phase, totals};
use wgpu_llm::low_level::run::Session;

fn main() -> wgpu_llm::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "model.gguf".into());
    let model = Arc::new(Model::open(path)?);
    // Without a real GPU, on the CPU.
    let device = Device::open(&Selector::Auto).ok();
    let mut session = Session::new(model, device, Options { context: 256, trace: true, ..Options::default() })?;
    session.measure_prompt(32)?;
    session.measure_answer(8)?;
    if let Some(profile) = session.engine().trace()? {
        for op in totals(profile, Group::Op, Phase::Answer).into_iter().take(5) {
            println!("{}: {:.1} µs a token", op.name, op.total as f64 / 1e3 / 8.0);
        }
    }
    Ok(())
}
