//! What tokens take: the mean of each part, and each token over time.

use super::Scene;
use crate::{colour, words};
use eframe::egui::{self, Ui};
use egui_plot::{Bar, BarChart, Legend, Line, Plot, PlotPoints};
use wgpu_llm::low_level::profile::Run;
use wgpu_llm::low_level::profile::statistics::{Phase, Tokens, tokens};

/// A part of a token's time: its name, what it is, in the mean and of one run, and its colour.
type Part = (&'static str, &'static str, fn(&Tokens) -> f64, fn(&Run) -> u64, usize);

const PARTS: [Part; 5] = [
    ("GPU", "from the first dispatch to the last, by the GPU's clock", |t| t.gpu, |r| r.gpu, 0),
    ("CPU", "the model's ops on the CPU", |t| t.cpu, |r| r.cpu, 1),
    ("submit", "the host encodes and submits", |t| t.submit, |r| r.submit, 8),
    ("wait", "the host waits for the GPU: most of the GPU's time lies in here", |t| t.wait, |r| r.wait, 9),
    ("readback", "the host takes the result", |t| t.readback, |r| r.readback, 4),
];

/// Tokens in the plot at most: the newest.
const MOST: usize = 2000;

/// Draws both.
pub fn ui(ui: &mut Ui, scene: &Scene) {
    egui::Grid::new("tokens").striped(true).spacing([18.0, 4.0]).show(ui, |ui| {
        for title in ["", "Batches", "Tokens", "Speed", "Time", "p95"] {
            ui.strong(title);
        }
        for (name, help, ..) in PARTS {
            ui.strong(name).on_hover_text(help);
        }
        ui.end_row();
        for (name, phase) in [("Prompt", Phase::Prompt), ("Answer", Phase::Answer)] {
            let t = tokens(scene.profile, phase);
            ui.strong(name);
            ui.label(t.runs.to_string());
            ui.label(t.tokens.to_string());
            ui.label(words::speed(t.rate()));
            ui.label(words::time(t.mean));
            ui.label(words::time(t.p95 as f64));
            for (_, _, mean, ..) in PARTS {
                ui.label(words::time(mean(&t)));
            }
            ui.end_row();
        }
    });
    ui.weak("Times of a batch in the mean. Submitting and waiting go on while the GPU works, so the parts do not add up to the time.");
    plot(ui, scene);
}

fn plot(ui: &mut Ui, scene: &Scene) {
    let profile = scene.profile;
    let of_phase = |i: &usize| scene.phase.holds(profile.runs[*i].tokens);
    let runs: Vec<usize> = (0..profile.runs.len()).filter(of_phase).collect();
    let runs = &runs[runs.len().saturating_sub(MOST)..];
    let ms = |ns: u64| ns as f64 / 1e6;
    let chart = |(name, _, _, of, colour): &Part| {
        let bar = |i: &usize| Bar::new(profile.runs[*i].run as f64, ms(of(&profile.runs[*i]))).width(0.9);
        let bars: Vec<Bar> = runs.iter().map(bar).collect();
        BarChart::new(*name, bars).color(colour::nth(*colour))
    };
    // The two devices' work; what the host does meanwhile is in the table.
    let gpu = chart(&PARTS[0]);
    let cpu = chart(&PARTS[1]).stack_on(&[&gpu]);
    let time = |i: &usize| Some([profile.runs[*i].run as f64, ms(profile.token_time(*i)?)]);
    let times: PlotPoints = runs.iter().filter_map(time).collect();
    let plot = Plot::new("tokens over time")
        .height(ui.available_height().max(100.0))
        .grid_color(colour::grid(ui.visuals()))
        .x_axis_label("batch")
        .y_axis_label("ms")
        .legend(Legend::default());
    plot.show(ui, |plot| {
        plot.bar_chart(gpu);
        plot.bar_chart(cpu);
        plot.line(Line::new("from token to token", times).color(colour::nth(3)).width(1.5));
    });
}
