//! The profiler within someone else's egui program: a model of random weights answers on a thread of its own, the program draws what
//! it likes, and the profiler is a window in it. `cargo run -p wgpu-llm-profiler --example embed`

use eframe::egui;
use std::sync::Arc;
use wgpu_llm::low_level::base::Result;
use wgpu_llm::low_level::gpu::{Device, Selector};
use wgpu_llm::low_level::model::{Model, synth::Synthetic};
use wgpu_llm::low_level::ops::Serial;
use wgpu_llm::low_level::plan::Options;
use wgpu_llm::low_level::profile::Observer;
use wgpu_llm::low_level::run::Session;
use wgpu_llm_profiler::{Feed, Viewer};

fn main() -> eframe::Result {
    let (sender, feed) = Feed::channel();
    std::thread::spawn(move || {
        if let Err(e) = compute(Box::new(sender)) {
            eprintln!("error: {e}");
        }
    });
    let mut viewer = Viewer::live(feed);
    let viewport = egui::ViewportBuilder::default().with_inner_size([1060.0, 700.0]);
    let options = eframe::NativeOptions { viewport, ..Default::default() };
    eframe::run_ui_native("someone else's program", options, move |ui, _| {
        egui::CentralPanel::default().show(ui, |ui| {
            ui.heading("Someone else's program");
            ui.label("It draws what it likes; a model answers on a thread of its own.");
        });
        let window = egui::Window::new("Profiler").default_pos([40.0, 80.0]).default_size([960.0, 560.0]);
        window.show(ui.ctx(), |ui| viewer.ui(ui));
    })
}

/// Answers for as long as the program runs, on a GPU where there is one.
fn compute(observer: Box<dyn Observer>) -> Result<()> {
    let synthetic: Synthetic = "llama-tiny:q4_0".parse()?;
    let model = Model::new(synthetic.model_file(&Serial, &mut |_| Ok(()))?)?;
    let device = Device::open(&Selector::Gpu).ok();
    let mut session = Session::new(Arc::new(model), device, Options { context: 512, ..Options::default() })?;
    // So that kernels are told as parts of what the devices can do.
    session.engine().measure_rooflines()?;
    session.engine().observe(observer)?;
    loop {
        session.truncate(0);
        session.measure_prompt(16)?;
        session.measure_answer(64)?;
    }
}
