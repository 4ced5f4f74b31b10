//! Colours that are told apart in light and dark, one per op.

use eframe::egui::{Color32, Visuals};
use wgpu_llm::run::Profile;

/// Ten hues of like lightness, told apart by most people who see fewer colours too.
const HUES: [Color32; 10] = [
    Color32::from_rgb(78, 121, 167),
    Color32::from_rgb(242, 142, 43),
    Color32::from_rgb(89, 161, 79),
    Color32::from_rgb(225, 87, 89),
    Color32::from_rgb(118, 183, 178),
    Color32::from_rgb(176, 122, 161),
    Color32::from_rgb(237, 201, 72),
    Color32::from_rgb(156, 117, 95),
    Color32::from_rgb(255, 157, 167),
    Color32::from_rgb(130, 130, 140),
];

/// The `i`th colour.
pub fn nth(i: usize) -> Color32 {
    HUES[i % HUES.len()]
}

/// The colour of text on `back`.
pub fn on(back: Color32) -> Color32 {
    let light = 0.3 * f32::from(back.r()) + 0.59 * f32::from(back.g()) + 0.11 * f32::from(back.b());
    if light > 120.0 { Color32::BLACK } else { Color32::WHITE }
}

/// The background of drawings.
pub fn canvas(visuals: &Visuals) -> Color32 {
    visuals.extreme_bg_color
}

/// A colour for each op of a profile.
#[derive(Default)]
pub struct Ops {
    names: Vec<String>,
    kernels: usize,
}

impl Ops {
    /// Learns the ops that are new.
    pub fn learn(&mut self, profile: &Profile) {
        if self.kernels > profile.kernels.len() {
            *self = Ops::default();
        }
        for kernel in &profile.kernels[self.kernels..] {
            if !self.names.contains(&kernel.op) {
                self.names.push(kernel.op.clone());
            }
        }
        self.kernels = profile.kernels.len();
    }

    /// The colour of an op.
    pub fn of(&self, op: &str) -> Color32 {
        nth(self.names.iter().position(|n| n == op).unwrap_or(HUES.len() - 1))
    }

    /// All ops.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}
