//! Kernels under what the device can do: operations per byte against operations per second, both by powers of ten.

use super::{Scene, timeline};
use crate::{colour, words};
use eframe::egui::Ui;
use egui_plot::{GridMark, HLine, HoverPosition, Legend, Line, Plot, PlotPoints, Points};
use std::ops::RangeInclusive;
use wgpu_llm::low_level::plan::roofline::Roofline;
use wgpu_llm::low_level::profile::statistics::{Group, Phase, Total, totals};

/// The scatter.
#[derive(Default)]
pub struct Scatter {
    device: usize,
    totals: Vec<Total>,
    known: Option<(u64, Phase)>,
}

/// Operations per byte that are shown, as powers of ten.
const INTENSITIES: (f64, f64) = (-1.5, 3.0);

impl Scatter {
    /// Draws it.
    pub fn ui(&mut self, ui: &mut Ui, scene: &Scene) {
        if self.known != Some((scene.version, scene.phase)) {
            self.totals = totals(scene.profile, Group::Kernel, scene.phase);
            self.known = Some((scene.version, scene.phase));
        }
        let used = |d: usize| self.totals.iter().any(|t| scene.profile.kernels[t.kernel].device == d);
        let devices: Vec<usize> = (0..scene.profile.facts.devices.len()).filter(|d| used(*d)).collect();
        if !devices.contains(&self.device) {
            self.device = devices.first().copied().unwrap_or(0);
        }
        if devices.len() > 1 {
            ui.horizontal(|ui| {
                for d in devices {
                    ui.selectable_value(&mut self.device, d, scene.profile.device(d).kind);
                }
            });
        }
        let facts = scene.profile.device(self.device);
        match facts.roofline {
            Some(r) => ui.label(format!(
                "{}: reads {}, multiplies {} in f32. Farther below the roof is slower than it could be.",
                facts.name,
                words::rate(r.read),
                words::flops(r.f32)
            )),
            None => {
                ui.label(format!("{}: what it can do was not measured; the kernels stand without a roof.", facts.name))
            }
        };
        timeline::legend(ui, scene);
        self.plot(ui, scene, facts.roofline);
    }

    fn plot(&self, ui: &mut Ui, scene: &Scene, roofline: Option<Roofline>) {
        let here = |t: &&Total| scene.profile.kernels[t.kernel].device == self.device && t.flops > 0.0 && t.bytes > 0.0;
        let kernels: Vec<&Total> = self.totals.iter().filter(here).collect();
        let label = |hover: &HoverPosition<'_>| match hover {
            HoverPosition::NearDataPoint { plot_name, .. } => {
                let told = kernels.iter().find(|t| t.name == *plot_name).map(|t| hint(t));
                Some(told.unwrap_or_else(|| (*plot_name).to_owned()))
            }
            HoverPosition::Elsewhere { .. } => None,
        };
        let intensity = |mark: GridMark, _: &RangeInclusive<f64>| power(mark.value);
        let rate = |mark: GridMark, _: &RangeInclusive<f64>| words::flops(10f64.powf(mark.value));
        let plot = Plot::new(("roofline", self.device))
            .height(ui.available_height().max(120.0))
            .grid_color(colour::grid(ui.visuals()))
            .x_axis_label("operations per byte")
            .x_axis_formatter(intensity)
            .y_axis_formatter(rate)
            .label_formatter(label)
            .legend(Legend::default().position(egui_plot::Corner::RightBottom).hidden_items(Vec::new()));
        plot.show(ui, |plot| {
            for (name, top, read) in roofline.iter().flat_map(roofs) {
                let ridge = (top / read).log10();
                let left = kernels.iter().map(|t| t.intensity().log10()).fold(INTENSITIES.0, f64::min);
                let at = |x: f64| [x, (read * 10f64.powf(x)).min(top).log10()];
                let points: PlotPoints = [left, ridge, INTENSITIES.1.max(ridge)].map(at).into_iter().collect();
                plot.line(Line::new(name, points).width(1.5));
            }
            for t in &kernels {
                let point = [t.intensity().log10(), t.flop_rate().log10()];
                let radius = 3.0 + 12.0 * t.fraction.sqrt() as f32;
                let colour = scene.ops.of(&scene.profile.kernels[t.kernel].op);
                plot.points(Points::new(t.name.clone(), vec![point]).radius(radius).color(colour));
            }
            if kernels.is_empty() {
                plot.hline(HLine::new("no kernel yet", 0.0));
            }
        });
    }
}

/// Each unit's roof: its name, operations per second, bytes per second.
fn roofs(r: &Roofline) -> Vec<(&'static str, f64, f64)> {
    let units = [("roof: f32", Some(r.f32)), ("roof: f16", r.f16), ("roof: bf16", r.bf16), ("roof: int8", r.int8)];
    let all = units.into_iter().chain([("roof: matrix units", r.matrix)]);
    all.filter_map(|(name, top)| Some((name, top.filter(|t| *t > 0.0 && r.read > 0.0)?, r.read))).collect()
}

fn hint(t: &Total) -> String {
    let peak = t.of_peak.map_or(String::new(), |p| format!(", {} of the roof", words::percent(p)));
    format!("{}\n{:.2} operations per byte\n{}{peak}", t.name, t.intensity(), words::flops(t.flop_rate()))
}

fn power(value: f64) -> String {
    let n = 10f64.powf(value);
    if n >= 1.0 { format!("{n:.0}") } else { format!("{n:.*}", (-value).ceil() as usize) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_units_that_were_measured_have_roofs() {
        let r = Roofline { read: 1e9, f32: 1e10, int8: Some(4e10), ..Roofline::default() };
        assert_eq!(roofs(&r), [("roof: f32", 1e10, 1e9), ("roof: int8", 4e10, 1e9)]);
        assert_eq!((power(-1.0), power(2.0)), ("0.1".into(), "100".into()));
    }
}
