//! The whole of it: which view is shown, keys, what is above the view and below it.

use crate::colour::{self, Ops};
use crate::feed::{self, Feed};
use crate::view::{Scene, View, diff, memory, roofline, strip, table, timeline, tokens};
use crate::words;
use eframe::egui::{self, Key, RichText, ThemePreference, Ui};
use std::time::{Duration, Instant};
use wgpu_llm::low_level::profile::Profile;
use wgpu_llm::low_level::profile::statistics::{self, Phase};

/// How often a window is drawn while records come, unless [`Viewer::every`] says otherwise: the GPU is the model's.
const FRAME: Duration = Duration::from_millis(100);
/// How often what is worked out from all events is worked out anew.
const ANEW: Duration = Duration::from_millis(500);

/// Shows a profile in whatever [`Ui`] it is given.
pub struct Viewer {
    profile: Profile,
    feed: Option<Feed>,
    view: View,
    phase: Phase,
    ops: Ops,
    table: table::Table,
    timeline: timeline::Timeline,
    scatter: roofline::Scatter,
    diff: diff::Diff,
    version: u64,
    worked_out: Option<Instant>,
    /// Whether something came since.
    stale: bool,
    frame: Duration,
    /// What went wrong last with a dropped file.
    problem: Option<String>,
}

impl Viewer {
    /// Of a profile that is complete.
    pub fn new(profile: Profile) -> Viewer {
        Viewer {
            profile,
            feed: None,
            view: View::default(),
            phase: Phase::All,
            ops: Ops::default(),
            table: table::Table::default(),
            timeline: timeline::Timeline::default(),
            scatter: roofline::Scatter::default(),
            diff: diff::Diff::default(),
            version: 0,
            worked_out: None,
            stale: false,
            frame: FRAME,
            problem: None,
        }
    }

    /// Of one that is on its way.
    pub fn live(feed: Feed) -> Viewer {
        Viewer { feed: Some(feed), ..Viewer::new(Profile::default()) }
    }

    /// Compares with `before`.
    pub fn compare(mut self, before: Profile) -> Viewer {
        self.diff.compare(before);
        self.view = View::Diff;
        self
    }

    /// Draws what comes no more often than once in `frame`: for where drawing takes the model's time. What the user does is shown
    /// at once.
    pub fn every(mut self, frame: Duration) -> Viewer {
        self.frame = frame;
        self
    }

    /// What is shown of.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// What is shown.
    pub fn view(&self) -> View {
        self.view
    }

    /// Shows another view.
    pub fn show(&mut self, view: View) {
        self.view = view;
    }

    /// The part of time that the timeline shows, in nanoseconds.
    pub fn timeline_span(&self) -> Option<(f64, f64)> {
        self.timeline.span()
    }

    /// Draws everything in the room that `ui` has.
    pub fn ui(&mut self, ui: &mut Ui) {
        // egui's own is too pale to read, in the light most of all.
        ui.visuals_mut().weak_text_color = Some(colour::weak(ui.visuals()));
        self.poll(ui);
        self.dropped(ui);
        self.keys(ui);
        self.ops.learn(&self.profile);
        self.header(ui);
        ui.separator();
        let room = (ui.available_height() - 72.0).max(120.0);
        let scene = Scene { profile: &self.profile, phase: self.phase, ops: &self.ops, version: self.version };
        ui.allocate_ui_with_layout(
            egui::vec2(ui.available_width(), room),
            egui::Layout::top_down(egui::Align::Min),
            |ui| {
                ui.set_min_height(room);
                ui.set_max_height(room);
                match self.view {
                    View::Kernels => self.table.ui(ui, &scene),
                    View::Timeline => self.timeline.ui(ui, &scene),
                    View::Roofline => self.scatter.ui(ui, &scene),
                    View::Tokens => tokens::ui(ui, &scene),
                    View::Memory => memory::ui(ui, &scene),
                    View::Diff => self.diff.ui(ui, &scene),
                }
            },
        );
        let chosen = self.timeline.run.filter(|_| self.view == View::Timeline);
        if let Some(run) = strip::ui(ui, &self.profile, chosen) {
            self.timeline.show_run(run);
            self.view = View::Timeline;
        }
    }

    /// Takes what has come.
    fn poll(&mut self, ui: &Ui) {
        let Some(feed) = &mut self.feed else { return };
        self.stale |= feed.poll(&mut self.profile);
        if feed.is_open() {
            // Also for what is not worked out yet: nothing else may come.
            ui.ctx().request_repaint_after(self.frame);
        } else {
            self.feed = None;
        }
        let due = self.worked_out.is_none_or(|t| t.elapsed() >= ANEW);
        if (self.stale && due) || self.feed.is_none() {
            self.version += 1;
            self.worked_out = Some(Instant::now());
            self.stale = false;
        }
    }

    /// A trace that is dropped on the window is compared with.
    fn dropped(&mut self, ui: &Ui) {
        let Some(path) = ui.input(|i| i.raw.dropped_files.first().map(|f| f.path().to_path_buf())) else {
            return;
        };
        match feed::open(&path) {
            Ok(profile) => {
                self.diff.compare(profile);
                self.view = View::Diff;
                self.problem = None;
            }
            Err(e) => self.problem = Some(e.to_string()),
        }
    }

    fn keys(&mut self, ui: &Ui) {
        if ui.memory(|m| m.focused().is_some()) {
            return;
        }
        let keys = [Key::Num1, Key::Num2, Key::Num3, Key::Num4, Key::Num5, Key::Num6];
        for (view, key) in View::ALL.into_iter().zip(keys) {
            if ui.input(|i| i.key_pressed(key)) {
                self.view = view;
            }
        }
    }

    fn header(&mut self, ui: &mut Ui) {
        ui.horizontal_wrapped(|ui| {
            for (i, view) in View::ALL.into_iter().enumerate() {
                ui.selectable_value(&mut self.view, view, view.name()).on_hover_text(format!("key {}", i + 1));
            }
            ui.separator();
            for (phase, name) in [(Phase::All, "All"), (Phase::Prompt, "Prompt"), (Phase::Answer, "Answer")] {
                ui.selectable_value(&mut self.phase, phase, name);
            }
            ui.separator();
            let mut theme = ui.ctx().options(|o| o.theme_preference);
            for (other, name) in [(ThemePreference::Light, "Light"), (ThemePreference::Dark, "Dark")] {
                if ui.selectable_value(&mut theme, other, name).changed() {
                    ui.ctx().set_theme(other);
                }
            }
        });
        let facts = &self.profile.facts;
        let devices: Vec<String> = facts.devices.iter().map(|d| format!("{} ({})", d.name, d.driver)).collect();
        let answer = statistics::tokens(&self.profile, Phase::Answer);
        ui.horizontal_wrapped(|ui| {
            ui.label(RichText::new(words::speed(answer.rate())).strong());
            let state = if self.feed.is_some() { "live" } else { "complete" };
            ui.weak(format!(
                "{state}: {}, {} of weights, context {}, {}",
                facts.architecture,
                words::bytes(facts.weights as f64),
                facts.context,
                devices.join(", ")
            ));
        });
        for device in facts.devices.iter().filter(|d| !d.timing.is_empty()) {
            ui.label(format!("{} has no clock of its own; its times are of {}.", device.name, device.timing));
        }
        if let Some(problem) = &self.problem {
            ui.colored_label(ui.visuals().error_fg_color, problem);
        }
    }
}
