//! Colours that are told apart in light and dark, one per op.

use eframe::egui::{Color32, Visuals};
use wgpu_llm::low_level::profile::Profile;

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

/// The colour of text that matters less: on the background, and on the canvas, at least 4.5 : 1 in contrast.
pub fn weak(visuals: &Visuals) -> Color32 {
    Color32::from_gray(if visuals.dark_mode { 150 } else { 100 })
}

/// The colour of a plot's strongest lines: what is plotted stands out from them.
pub fn grid(visuals: &Visuals) -> Color32 {
    visuals.text_color().gamma_multiply(0.5)
}

/// The colour of a bar behind a number.
pub fn bar(visuals: &Visuals) -> Color32 {
    // In the dark the colour of selections is strong, in the light it is pale.
    visuals.selection.bg_fill.gamma_multiply(if visuals.dark_mode { 0.6 } else { 1.0 })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance, as WCAG 2 defines it.
    fn luminance(c: Color32) -> f64 {
        let linear = |v: u8| {
            let v = f64::from(v) / 255.0;
            if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(c.r()) + 0.7152 * linear(c.g()) + 0.0722 * linear(c.b())
    }

    fn contrast(a: Color32, b: Color32) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn texts_can_be_read_in_the_light_and_in_the_dark() {
        for visuals in [Visuals::light(), Visuals::dark()] {
            for back in [visuals.panel_fill, canvas(&visuals), visuals.faint_bg_color] {
                // What is faint lies on the panel.
                let back = if back.a() < 255 { visuals.panel_fill } else { back };
                for text in [weak(&visuals), visuals.text_color()] {
                    assert!(contrast(text, back) >= 4.5, "{text:?} on {back:?}: {}", contrast(text, back));
                }
            }
            assert!(contrast(visuals.text_color(), bar(&visuals)) >= 3.0, "{:?}", bar(&visuals));
        }
        for i in 0..HUES.len() {
            assert!(contrast(nth(i), on(nth(i))) >= 4.0, "{i}: {}", contrast(nth(i), on(nth(i))));
        }
    }
}
