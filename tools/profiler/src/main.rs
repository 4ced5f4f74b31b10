//! `wgpu-llm-profiler`: the window that `wgpu-llm chat --profile` and `wgpu-llm profile` open.
//!
//!   wgpu-llm-profiler FILE           a trace that --trace wrote
//!   wgpu-llm-profiler BEFORE AFTER   two of them, compared
//!   wgpu-llm-profiler -              records as they come on standard input
#![forbid(unsafe_code)]

use eframe::egui;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use wgpu_llm_profiler::{Feed, Viewer, open};

/// How often such a CPU draws what comes.
const ON_CPU: Duration = Duration::from_secs(2);

const USAGE: &str = "usage: wgpu-llm-profiler FILE | BEFORE AFTER | -";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = viewer(&args).and_then(window);
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

fn viewer(args: &[String]) -> Result<Viewer, String> {
    let file = |name: &String| open(Path::new(name)).map_err(|e| e.to_string());
    match args {
        [one] if one == "-" => Ok(Viewer::live(Feed::lines(std::io::stdin()))),
        [one] if !one.starts_with('-') => Ok(Viewer::new(file(one)?)),
        [before, after] => Ok(Viewer::new(file(after)?).compare(file(before)?)),
        _ => Err(USAGE.into()),
    }
}

/// Opens the window and stays until it is closed.
fn window(viewer: Viewer) -> Result<(), String> {
    let viewport =
        egui::ViewportBuilder::default().with_inner_size([1100.0, 700.0]).with_min_inner_size([480.0, 320.0]);
    let options = eframe::NativeOptions { viewport, ..Default::default() };
    let made = eframe::run_native(
        "wgpu-llm profiler",
        options,
        Box::new(|context| {
            let viewer = if draws_on_cpu(context) { viewer.every(ON_CPU) } else { viewer };
            Ok(Box::new(Window(viewer)))
        }),
    );
    made.map_err(|e| format!("no window can be opened: {e}"))
}

/// Whether the window is drawn by a CPU that plays GPU, as the model may be computed by it.
fn draws_on_cpu(context: &eframe::CreationContext) -> bool {
    let state = context.wgpu_render_state.as_ref();
    state.is_some_and(|s| s.adapter.get_info().device_type == eframe::wgpu::DeviceType::Cpu)
}

struct Window(Viewer);

impl eframe::App for Window {
    fn ui(&mut self, ui: &mut egui::Ui, _: &mut eframe::Frame) {
        egui::CentralPanel::default().show(ui, |ui| self.0.ui(ui));
    }
}
