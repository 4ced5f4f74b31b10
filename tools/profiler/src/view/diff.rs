//! Two traces side by side: what became slower, and what faster.

use super::Scene;
use crate::{colour, words};
use eframe::egui::{self, Align, Layout, Ui};
use wgpu_llm::low_level::profile::Profile;
use wgpu_llm::low_level::profile::statistics::{Group, Phase, tokens, totals};

/// A step of the model in both traces: nanoseconds per token, `None` if it does not run.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The step, whichever kernel does it.
    pub name: String,
    /// In the trace to compare with.
    pub before: Option<f64>,
    /// In this one.
    pub after: Option<f64>,
}

impl Change {
    /// Nanoseconds per token that came on top.
    pub fn difference(&self) -> f64 {
        self.after.unwrap_or(0.0) - self.before.unwrap_or(0.0)
    }
}

/// The steps of both, those that changed most first.
pub fn changes(before: &Profile, after: &Profile, phase: Phase) -> Vec<Change> {
    let per_token = |profile: &Profile| -> Vec<(String, f64)> {
        let n = tokens(profile, phase).tokens.max(1) as f64;
        let mut steps: Vec<(String, f64)> = Vec::new();
        for t in totals(profile, Group::Kernel, phase) {
            let kernel = &profile.kernels[t.kernel];
            let name = format!("{} {}", kernel.op, kernel.label);
            let time = t.total as f64 / n;
            match steps.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += time,
                None => steps.push((name, time)),
            }
        }
        steps
    };
    let (before, after) = (per_token(before), per_token(after));
    let find = |list: &[(String, f64)], name: &str| list.iter().find(|(n, _)| n == name).map(|(_, t)| *t);
    let gone = before.iter().filter(|(name, _)| find(&after, name).is_none());
    let mut all: Vec<Change> = after
        .iter()
        .chain(gone)
        .map(|(name, _)| Change { name: name.clone(), before: find(&before, name), after: find(&after, name) })
        .collect();
    all.sort_by(|a, b| b.difference().abs().total_cmp(&a.difference().abs()));
    all
}

/// The comparison.
#[derive(Default)]
pub struct Diff {
    before: Option<Profile>,
    speeds: String,
    changes: Vec<Change>,
    known: Option<(u64, Phase)>,
}

impl Diff {
    /// Compares with `before` from now on.
    pub fn compare(&mut self, before: Profile) {
        self.before = Some(before);
        self.known = None;
    }

    /// Draws the table.
    pub fn ui(&mut self, ui: &mut Ui, scene: &Scene) {
        let Some(before) = &self.before else {
            ui.label(
                "Nothing to compare with. Drop a trace file here, or start with two: wgpu-llm profile BEFORE AFTER",
            );
            return;
        };
        if self.known != Some((scene.version, scene.phase)) {
            let speed = |p: &Profile| words::speed(tokens(p, scene.phase).rate());
            self.speeds = format!("{} before, {} now. Times are per token.", speed(before), speed(scene.profile));
            self.changes = changes(before, scene.profile, scene.phase);
            self.known = Some((scene.version, scene.phase));
        }
        ui.label(&self.speeds);
        egui::ScrollArea::both().auto_shrink([false, true]).show(ui, |ui| {
            egui::Grid::new("diff").striped(true).spacing([18.0, 4.0]).show(ui, |ui| {
                for title in ["Step", "Before", "Now", "Difference", "Ratio"] {
                    ui.strong(title);
                }
                ui.end_row();
                self.changes.iter().for_each(|change| row(ui, change));
            });
        });
    }
}

fn row(ui: &mut Ui, change: &Change) {
    let time = |t: Option<f64>| t.map_or("–".to_owned(), words::time);
    let right = |ui: &mut Ui, text: egui::RichText| {
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| ui.label(text));
    };
    ui.label(&change.name);
    right(ui, time(change.before).into());
    right(ui, time(change.after).into());
    let difference = change.difference();
    let colour = if difference > 0.0 { colour::nth(3) } else { colour::nth(2) };
    right(
        ui,
        egui::RichText::new(format!("{}{}", if difference > 0.0 { "+" } else { "" }, words::time(difference)))
            .color(colour),
    );
    let ratio = change.before.zip(change.after).filter(|(b, _)| *b > 0.0);
    right(ui, ratio.map_or("–".to_owned(), |(b, a)| format!("{:.2} ×", a / b)).into());
    ui.end_row();
}
