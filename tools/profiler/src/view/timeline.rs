//! What ran when: for each device a flame of token, layer and kernel, and what the host did, to zoom into and move along.

use super::Scene;
use super::slices::{Slice, slices};
use crate::{colour, words};
use eframe::egui::{self, Align2, Key, Painter, Pos2, Rect, Sense, Ui, pos2, vec2};
use wgpu_llm::low_level::profile::Run;

const ROW: f32 = 26.0;
const RULER: f32 = 18.0;
const NAMES: f32 = 46.0;
/// Nanoseconds: nothing shorter can be seen in a trace.
const LEAST_SPAN: f64 = 200.0;

/// The timeline: what part of time is in view.
#[derive(Default)]
pub struct Timeline {
    /// Nanoseconds at the left edge and at the right one.
    span: Option<(f64, f64)>,
    /// Index of the run that was chosen last.
    pub run: Option<usize>,
}

impl Timeline {
    /// Brings a run into view.
    pub fn show_run(&mut self, run: usize) {
        self.run = Some(run);
        self.span = None;
    }

    /// What is in view, in nanoseconds.
    pub fn span(&self) -> Option<(f64, f64)> {
        self.span
    }

    /// Draws it.
    pub fn ui(&mut self, ui: &mut Ui, scene: &Scene) {
        let runs = &scene.profile.runs;
        let Some(last) = runs.len().checked_sub(1) else {
            ui.label("Nothing ran yet.");
            return;
        };
        let run = self.run.unwrap_or(last).min(last);
        self.controls(ui, scene, run);
        let rows = 1 + 3 * scene.profile.facts.devices.len();
        let height = (RULER + ROW * rows as f32 + 8.0).min(ui.available_height().max(80.0));
        let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), height), Sense::click_and_drag());
        let canvas = Rect::from_min_max(rect.min + vec2(NAMES, 0.0), rect.max);
        if self.span.is_none() || response.double_clicked() {
            self.span = Some(whole(scene, run));
        }
        self.pointer(ui, &response, canvas);
        self.keys(ui, last, run);
        let span = self.span.unwrap_or_else(|| whole(scene, self.run.unwrap_or(last).min(last)));
        self.span = Some(span);
        ui.painter().rect_filled(rect, 3.0, colour::canvas(ui.visuals()));
        names(ui, rect, scene);
        let painter = ui.painter_at(canvas);
        ruler(ui, &painter, canvas, span, whole(scene, run).0);
        let slices = slices(scene, span, canvas.width());
        let hovered = draw(ui, scene, &painter, canvas, span, &slices, response.hover_pos());
        if let Some(slice) = hovered {
            response.on_hover_text(slice.what.hint(scene));
        }
        ui.weak("Scroll or +/− zooms, drag or A/D moves, a double click shows the token, the arrow keys go to other tokens.");
        legend(ui, scene);
    }

    fn controls(&mut self, ui: &mut Ui, scene: &Scene, run: usize) {
        let runs = &scene.profile.runs;
        ui.horizontal_wrapped(|ui| {
            if ui.button("‹").on_hover_text("the token before").clicked() && run > 0 {
                self.show_run(run - 1);
            }
            if ui.button("›").on_hover_text("the next token").clicked() && run + 1 < runs.len() {
                self.show_run(run + 1);
            }
            if ui.button("All").on_hover_text("the whole session").clicked() {
                self.span = Some(all(runs));
            }
            let r = &runs[run];
            let what = match r.tokens {
                1 => format!("token at position {}", r.past),
                n => format!("{n} tokens of a prompt from position {}", r.past),
            };
            ui.label(what);
            let parts =
                [("GPU", r.gpu), ("CPU", r.cpu), ("submit", r.submit), ("wait", r.wait), ("readback", r.readback)];
            for (name, ns) in parts.into_iter().filter(|(_, ns)| *ns > 0) {
                ui.separator();
                ui.label(format!("{name} {}", words::time(ns as f64)));
            }
        });
    }

    /// The wheel zooms around the pointer, dragging moves.
    fn pointer(&mut self, ui: &Ui, response: &egui::Response, canvas: Rect) {
        let Some((start, end)) = self.span else { return };
        let length = end - start;
        let per_point = length / f64::from(canvas.width().max(1.0));
        let mut moved = -f64::from(response.drag_delta().x) * per_point;
        let mut zoom = 1.0;
        if let Some(at) = response.hover_pos() {
            let (scroll, pinch) = ui.input(|i| (i.smooth_scroll_delta(), i.zoom_delta()));
            moved -= f64::from(scroll.x) * per_point;
            zoom = f64::from((scroll.y / 200.0).exp() * pinch);
            let fixed = start + f64::from(at.x - canvas.left()) * per_point;
            self.span = Some((fixed - (fixed - start) / zoom, fixed + (end - fixed) / zoom));
        }
        if zoom != 1.0 || moved != 0.0 {
            let (start, end) = self.span.unwrap_or((start, end));
            let grow = (LEAST_SPAN - (end - start)).max(0.0) / 2.0;
            self.span = Some((start + moved - grow, end + moved + grow));
        }
    }

    fn keys(&mut self, ui: &Ui, last: usize, run: usize) {
        if ui.memory(|m| m.focused().is_some()) {
            return;
        }
        let pressed = |key| ui.input(|i| i.key_pressed(key));
        match (pressed(Key::ArrowLeft), pressed(Key::ArrowRight)) {
            (true, false) if run > 0 => self.show_run(run - 1),
            (false, true) if run < last => self.show_run(run + 1),
            _ => {}
        }
        let Some((start, end)) = self.span else { return };
        let length = end - start;
        let (zoom, shift) = if pressed(Key::Plus) || pressed(Key::Equals) {
            (0.25, 0.0)
        } else if pressed(Key::Minus) {
            (-0.5, 0.0)
        } else if pressed(Key::A) {
            (0.0, -0.25)
        } else if pressed(Key::D) {
            (0.0, 0.25)
        } else {
            return;
        };
        if length * (1.0 - 2.0 * zoom) >= LEAST_SPAN {
            self.span = Some((start + length * (zoom + shift), end + length * (shift - zoom)));
        }
    }
}

/// The span of a run, with a little room.
fn whole(scene: &Scene, run: usize) -> (f64, f64) {
    let run = &scene.profile.runs[run];
    let events = scene.profile.events_of(run.run);
    // The host may have submitted it long before: the token before it ran then.
    let start = events.iter().map(|e| e.start).min().unwrap_or(run.start) as f64;
    let end = events.iter().map(|e| e.start + e.length).max().unwrap_or(run.end).max(run.end) as f64;
    let room = (end - start).max(LEAST_SPAN) * 0.01;
    (start - room, end + room)
}

fn all(runs: &[Run]) -> (f64, f64) {
    let start = runs.iter().map(|r| r.start).min().unwrap_or(0) as f64;
    (start, runs.iter().map(|r| r.end).max().unwrap_or(0).max(start as u64 + 1) as f64)
}

fn names(ui: &Ui, rect: Rect, scene: &Scene) {
    let font = egui::TextStyle::Small.resolve(ui.style());
    let devices = scene.profile.facts.devices.iter().enumerate().map(|(i, d)| (1 + 3 * i, d.kind.as_str()));
    for (row, name) in [(0, "host")].into_iter().chain(devices) {
        let at = pos2(rect.left() + 4.0, rect.top() + RULER + ROW * (row as f32 + 0.5));
        ui.painter().text(at, Align2::LEFT_CENTER, name, font.clone(), ui.visuals().text_color());
    }
}

/// Times from the token's beginning.
fn ruler(ui: &Ui, painter: &Painter, canvas: Rect, span: (f64, f64), zero: f64) {
    let length = (span.1 - span.0).max(1.0);
    let ideal = length * 90.0 / f64::from(canvas.width().max(1.0));
    let power = 10f64.powf(ideal.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= ideal).unwrap_or(10.0 * power);
    let font = egui::TextStyle::Small.resolve(ui.style());
    let mut at = ((span.0 - zero) / step).ceil() * step;
    while at + zero <= span.1 {
        let x = canvas.left() + ((at + zero - span.0) / length) as f32 * canvas.width();
        painter.vline(x, canvas.y_range(), (1.0, ui.visuals().weak_text_color().gamma_multiply(0.3)));
        let text = if at == 0.0 { "0".into() } else { words::time(at) };
        painter.text(
            pos2(x + 3.0, canvas.top() + 2.0),
            Align2::LEFT_TOP,
            text,
            font.clone(),
            ui.visuals().weak_text_color(),
        );
        at += step;
    }
}

/// Draws the slices; gives the one under the pointer.
fn draw<'s, 'p>(
    ui: &Ui,
    scene: &Scene,
    painter: &Painter,
    canvas: Rect,
    span: (f64, f64),
    slices: &'s [Slice<'p>],
    pointer: Option<Pos2>,
) -> Option<&'s Slice<'p>> {
    let font = egui::TextStyle::Small.resolve(ui.style());
    let x = |t: f64| canvas.left() + (((t - span.0) / (span.1 - span.0)) as f32).clamp(-0.1, 1.1) * canvas.width();
    let mut hovered = None;
    for slice in slices {
        let top = canvas.top() + RULER + ROW * slice.row as f32;
        let (left, right) = (x(slice.start), x(slice.end));
        let rect = Rect::from_min_max(pos2(left, top), pos2(right.max(left + 1.0), top + ROW - 1.0));
        let fill = slice.what.fill(scene);
        painter.rect_filled(rect, 0.0, fill);
        if rect.width() > 4.0 {
            painter.vline(rect.left(), rect.y_range(), (1.0, colour::canvas(ui.visuals())));
        }
        if rect.width() > 28.0 {
            let inner = painter.with_clip_rect(rect.intersect(canvas));
            let at = pos2(rect.left().max(canvas.left()) + 3.0, rect.center().y);
            inner.text(at, Align2::LEFT_CENTER, slice.what.name(scene), font.clone(), colour::on(fill));
        }
        if pointer.is_some_and(|p| rect.contains(p)) {
            hovered = Some(slice);
        }
    }
    hovered
}

/// Which colour is which op.
pub fn legend(ui: &mut Ui, scene: &Scene) {
    ui.horizontal_wrapped(|ui| {
        for name in scene.ops.names() {
            super::table::mark(ui, scene.ops.of(name));
            ui.small(name);
        }
    });
}
