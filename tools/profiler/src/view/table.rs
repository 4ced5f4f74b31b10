//! Kernels as a table that any column sorts.

use super::Scene;
use crate::colour;
use crate::words;
use eframe::egui::{self, Align, Layout, Rect, RichText, Sense, Ui};
use std::cmp::Ordering;
use wgpu_llm::low_level::profile::statistics::{Group, Phase, Total, totals};

/// A column: its title, what it tells, and by what it sorts.
struct Column {
    title: &'static str,
    help: &'static str,
    text: fn(&Total) -> String,
    order: fn(&Total, &Total) -> Ordering,
}

fn layer(t: &Total) -> String {
    t.layer.map_or(String::new(), |l| l.to_string())
}

fn bound(t: &Total) -> String {
    t.memory_bound.map_or(String::new(), |memory| if memory { "memory" } else { "arithmetic" }.into())
}

const COLUMNS: [Column; 11] = [
    Column {
        title: "Kernel",
        help: "op/variant and the step of the model it is",
        text: |t| t.name.clone(),
        order: |a, b| b.name.cmp(&a.name),
    },
    Column { title: "Layer", help: "layer of the model", text: layer, order: |a, b| b.layer.cmp(&a.layer) },
    Column {
        title: "Runs",
        help: "how often it ran",
        text: |t| t.count.to_string(),
        order: |a, b| a.count.cmp(&b.count),
    },
    Column {
        title: "Total",
        help: "time of all runs together",
        text: |t| words::time(t.total as f64),
        order: |a, b| a.total.cmp(&b.total),
    },
    Column {
        title: "Time",
        help: "part of all kernels' time",
        text: |t| words::percent(t.fraction),
        order: |a, b| a.total.cmp(&b.total),
    },
    Column {
        title: "Mean",
        help: "time of one run",
        text: |t| words::time(t.mean()),
        order: |a, b| a.mean().total_cmp(&b.mean()),
    },
    Column {
        title: "p95",
        help: "one run in twenty takes longer",
        text: |t| words::time(t.p95 as f64),
        order: |a, b| a.p95.cmp(&b.p95),
    },
    Column {
        title: "Bandwidth",
        help: "bytes that have to be moved, activations included, per second",
        text: |t| words::rate(t.rate()),
        order: |a, b| a.rate().total_cmp(&b.rate()),
    },
    Column {
        title: "Arithmetic",
        help: "operations per second; a multiplication and an addition are two",
        text: |t| words::flops(t.flop_rate()),
        order: |a, b| a.flop_rate().total_cmp(&b.flop_rate()),
    },
    Column {
        title: "Roofline",
        help: "the least time that the device needs for it over the time it takes",
        text: |t| t.of_peak.map_or("?".into(), words::percent),
        order: |a, b| a.of_peak.unwrap_or(0.0).total_cmp(&b.of_peak.unwrap_or(0.0)),
    },
    Column {
        title: "Bound by",
        help: "what the device's roofline says",
        text: bound,
        order: |a, b| bound(a).cmp(&bound(b)),
    },
];

const TOTAL: usize = 3;
const TIME: usize = 4;

/// The table.
pub struct Table {
    group: Group,
    column: usize,
    ascending: bool,
    filter: String,
    selected: Option<String>,
    rows: Vec<Total>,
    known: Option<(u64, Phase, Group)>,
}

impl Default for Table {
    fn default() -> Self {
        Table {
            group: Group::Kernel,
            column: TOTAL,
            ascending: false,
            filter: String::new(),
            selected: None,
            rows: Vec::new(),
            known: None,
        }
    }
}

impl Table {
    /// Draws it.
    pub fn ui(&mut self, ui: &mut Ui, scene: &Scene) {
        self.controls(ui);
        let key = (scene.version, scene.phase, self.group);
        if self.known != Some(key) {
            self.rows = totals(scene.profile, self.group, scene.phase);
            self.known = Some(key);
        }
        if self.rows.is_empty() {
            ui.label("No kernel ran yet.");
            return;
        }
        self.sort();
        self.keys(ui);
        let height = (ui.available_height() - self.details_height(ui)).max(60.0);
        egui::ScrollArea::both().max_height(height).auto_shrink([false, true]).show(ui, |ui| {
            egui::Grid::new("kernels").striped(true).spacing([14.0, 4.0]).show(ui, |ui| self.grid(ui, scene));
        });
        self.details(ui, scene);
    }

    fn controls(&mut self, ui: &mut Ui) {
        ui.horizontal(|ui| {
            for (group, name) in [(Group::Kernel, "By kernel"), (Group::Layer, "By layer"), (Group::Op, "By op")] {
                ui.selectable_value(&mut self.group, group, name);
            }
            ui.separator();
            let filter = egui::TextEdit::singleline(&mut self.filter).hint_text("Filter").desired_width(140.0);
            ui.add(filter).on_hover_text("show only what contains this");
        });
    }

    fn sort(&mut self) {
        let (order, ascending) = (COLUMNS[self.column].order, self.ascending);
        self.rows.sort_by(|a, b| if ascending { order(a, b) } else { order(b, a) });
    }

    fn shown(&self) -> impl Iterator<Item = &Total> {
        self.rows.iter().filter(|t| self.filter.is_empty() || t.name.contains(&self.filter))
    }

    /// Arrows move the selection.
    fn keys(&mut self, ui: &mut Ui) {
        if ui.memory(|m| m.focused().is_some()) {
            return;
        }
        let pressed = |key| ui.input(|i| i.key_pressed(key));
        let step = i32::from(pressed(egui::Key::ArrowDown)) - i32::from(pressed(egui::Key::ArrowUp));
        if step == 0 {
            return;
        }
        let keys: Vec<String> = self.shown().map(row_key).collect();
        let at = self.selected.as_ref().and_then(|s| keys.iter().position(|k| k == s)).map_or(-1, |i| i as i32);
        let next = (at + step).clamp(0, keys.len() as i32 - 1);
        self.selected = keys.get(next as usize).cloned();
    }

    fn grid(&mut self, ui: &mut Ui, scene: &Scene) {
        let columns = || COLUMNS.iter().enumerate().filter(|(i, _)| *i != 1 || self.group == Group::Layer);
        let mut clicked = None;
        for (i, column) in columns() {
            let arrow = match (i == self.column, self.ascending) {
                (true, true) => " ^",
                (true, false) => " v",
                _ => "",
            };
            let title = RichText::new(format!("{}{arrow}", column.title)).strong();
            if ui.add(egui::Button::new(title).frame(false)).on_hover_text(column.help).clicked() {
                clicked = Some(i);
            }
        }
        ui.end_row();
        let mut selected = None;
        for total in self.shown() {
            let op = &scene.profile.kernels[total.kernel].op;
            let top = ui.cursor().top();
            for (i, column) in columns() {
                let text = (column.text)(total);
                match i {
                    0 => {
                        ui.horizontal(|ui| {
                            mark(ui, scene.ops.of(op));
                            let chosen = self.selected.as_ref() == Some(&row_key(total));
                            if ui.selectable_label(chosen, text).clicked() {
                                selected = Some(row_key(total));
                            }
                        });
                    }
                    TIME => bar(ui, total.fraction as f32, &text),
                    _ => {
                        ui.with_layout(Layout::right_to_left(Align::Center), |ui| ui.label(text));
                    }
                }
            }
            ui.end_row();
            // Wherever it is clicked.
            let row = Rect::from_x_y_ranges(ui.clip_rect().x_range(), top..=ui.cursor().top());
            if ui.interact(row, ui.scope_id().with(row_key(total)), Sense::click()).clicked() {
                selected = Some(row_key(total));
            }
        }
        if let Some(i) = clicked {
            self.ascending = i == self.column && !self.ascending;
            self.column = i;
        }
        self.selected = selected.or(self.selected.take());
    }

    fn details_height(&self, ui: &Ui) -> f32 {
        if self.selected.is_some() { 5.5 * ui.text_style_height(&egui::TextStyle::Body) } else { 0.0 }
    }

    /// What is known of the selected kernel.
    fn details(&self, ui: &mut Ui, scene: &Scene) {
        let Some(total) = self.rows.iter().find(|t| Some(row_key(t)) == self.selected) else { return };
        let kernel = &scene.profile.kernels[total.kernel];
        ui.separator();
        let device = scene.profile.device(kernel.device);
        let place = if kernel.shader.is_empty() { String::new() } else { format!(", shaders/{}.wgsl", kernel.shader) };
        ui.label(RichText::new(format!("{} on the {}: {}{place}", total.name, device.kind, device.name)).strong());
        if !kernel.dst.is_empty() {
            ui.label(format!("{} gives {}", kernel.src.join(", "), kernel.dst));
        }
        let each = |n: f64| n / total.count.max(1) as f64;
        ui.label(format!(
            "each run moves {} and takes {} operations: {:.2} operations per byte",
            words::bytes(each(total.bytes)),
            words::count(each(total.flops)),
            total.intensity()
        ));
    }
}

fn row_key(t: &Total) -> String {
    format!("{} {}", t.name, layer(t))
}

/// A spot of colour.
pub fn mark(ui: &mut Ui, colour: egui::Color32) {
    let (rect, _) = ui.allocate_exact_size(egui::vec2(8.0, 12.0), egui::Sense::hover());
    ui.painter().rect_filled(rect, 2.0, colour);
}

/// A number with a bar behind it.
fn bar(ui: &mut Ui, part: f32, text: &str) {
    let (rect, response) = ui.allocate_exact_size(egui::vec2(84.0, 16.0), egui::Sense::hover());
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Label, true, text));
    let filled = egui::Rect::from_min_size(rect.min, egui::vec2(rect.width() * part.clamp(0.0, 1.0), rect.height()));
    ui.painter().rect_filled(filled, 2.0, colour::bar(ui.visuals()));
    let (at, font) = (rect.right_center() - egui::vec2(4.0, 0.0), egui::TextStyle::Body.resolve(ui.style()));
    ui.painter().text(at, egui::Align2::RIGHT_CENTER, text, font, ui.visuals().text_color());
}
