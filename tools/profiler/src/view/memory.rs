//! Memory of each device, now and over time, and which layers lie where.

use super::Scene;
use crate::{colour, words};
use eframe::egui::{self, Color32, Rect, Sense, Ui, vec2};
use egui_plot::{Legend, Line, Plot, PlotPoints};
use wgpu_llm::low_level::plan::MemoryUse;

/// A part of a device's memory, and its colour.
type Part = (&'static str, fn(&MemoryUse) -> u64, usize);

const PARTS: [Part; 3] = [("weights", |m| m.weights, 0), ("cache", |m| m.cache, 1), ("other", |m| m.other, 9)];

/// Draws all three.
pub fn ui(ui: &mut Ui, scene: &Scene) {
    let memory = scene.profile.memory();
    let most = memory.iter().map(MemoryUse::bytes).max().unwrap_or(1).max(1) as f32;
    for m in &memory {
        let device = scene.profile.device(m.device);
        ui.label(format!("{} ({}): {}", device.kind, device.name, words::bytes(m.bytes() as f64)));
        let (rect, _) = ui.allocate_exact_size(vec2(ui.available_width(), 22.0), Sense::hover());
        ui.painter().rect_filled(rect, 3.0, colour::canvas(ui.visuals()));
        let mut left = rect.left();
        for (_, of, fill) in PARTS {
            let width = of(m) as f32 / most * rect.width();
            let part = Rect::from_min_size(egui::pos2(left, rect.top()), vec2(width, rect.height()));
            ui.painter().rect_filled(part, 0.0, colour::nth(fill));
            left += width;
        }
        ui.horizontal(|ui| {
            for (name, of, fill) in PARTS {
                super::table::mark(ui, colour::nth(fill));
                ui.small(format!("{name} {}", words::bytes(of(m) as f64)));
            }
        });
    }
    ui.separator();
    placement(ui, scene);
    ui.separator();
    over_time(ui, scene);
}

/// A box for each layer, in the colour of its device.
fn placement(ui: &mut Ui, scene: &Scene) {
    let devices = &scene.profile.facts.devices;
    let fill = |device: usize| -> Color32 { colour::nth(if device == 0 { 1 } else { 2 }) };
    let layers = &scene.profile.facts.placement;
    let of = |d: usize| layers.iter().filter(move |l| l.device == d);
    ui.horizontal_wrapped(|ui| {
        ui.label("Placement:");
        for (d, device) in devices.iter().enumerate() {
            super::table::mark(ui, fill(d));
            let (n, bytes) = (of(d).filter(|l| l.layer.is_some()).count(), of(d).map(|l| l.weights).sum::<u64>());
            ui.label(format!("{}: {n} layers, {} of weights", device.kind, words::bytes(bytes as f64)));
        }
    });
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing = vec2(2.0, 2.0);
        for layer in layers {
            let name = layer.layer.map_or("in/out".to_owned(), |l| l.to_string());
            let (rect, response) =
                ui.allocate_exact_size(vec2(if layer.layer.is_none() { 44.0 } else { 26.0 }, 22.0), Sense::hover());
            ui.painter().rect_filled(rect, 2.0, fill(layer.device));
            let font = egui::TextStyle::Small.resolve(ui.style());
            let text = colour::on(fill(layer.device));
            ui.painter().text(rect.center(), egui::Align2::CENTER_CENTER, &name, font, text);
            response.on_hover_text(format!("{name}: {} of weights", words::bytes(layer.weights as f64)));
        }
    });
}

fn over_time(ui: &mut Ui, scene: &Scene) {
    let runs = &scene.profile.runs;
    let end = runs.last().map_or(0, |r| r.end) as f64 / 1e9;
    let plot = Plot::new("memory over time")
        .height(ui.available_height().max(100.0))
        .grid_color(colour::grid(ui.visuals()))
        .x_axis_label("seconds")
        .y_axis_label("MiB")
        .include_y(0.0)
        .legend(Legend::default());
    plot.show(ui, |plot| {
        for (d, device) in scene.profile.facts.devices.iter().enumerate() {
            // A step wherever it changes.
            let mut points: Vec<[f64; 2]> = Vec::new();
            for run in runs {
                for m in run.memory.iter().filter(|m| m.device == d) {
                    let (t, mib) = (run.start as f64 / 1e9, m.bytes() as f64 / f64::from(1 << 20));
                    points.extend(points.last().map(|last| [t, last[1]]));
                    points.push([t, mib]);
                }
            }
            points.extend(points.last().map(|last| [end, last[1]]));
            if !points.is_empty() {
                plot.line(Line::new(device.kind.clone(), PlotPoints::new(points)).color(colour::nth(if d == 0 {
                    1
                } else {
                    2
                })));
            }
        }
    });
}
