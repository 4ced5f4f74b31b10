//! Tokens per second, a bar for each token: below every view. A click chooses the token.

use crate::{colour, words};
use eframe::egui::{self, Rect, Sense, Ui, pos2, vec2};
use wgpu_llm::low_level::profile::Profile;

const HEIGHT: f32 = 56.0;
/// Points between the bars' left edges, at the least.
const STEP: f32 = 3.0;

/// Draws the strip; gives the index of the run that was clicked.
pub fn ui(ui: &mut Ui, profile: &Profile, selected: Option<usize>) -> Option<usize> {
    let speeds: Vec<(usize, f64)> =
        (0..profile.runs.len()).filter_map(|i| Some((i, 1e9 / profile.token_time(i)? as f64))).collect();
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), HEIGHT), Sense::click());
    let painter = ui.painter_at(rect);
    painter.rect_filled(rect, 3.0, colour::canvas(ui.visuals()));
    let room = ((rect.width() / STEP) as usize).max(1);
    // The newest tokens, where there is no room for all.
    let shown = &speeds[speeds.len().saturating_sub(room)..];
    let most = shown.iter().map(|(_, s)| *s).fold(1e-9, f64::max);
    let step = (rect.width() / shown.len().max(1) as f32).clamp(STEP, 24.0);
    let at = |n: usize, speed: f64| {
        let height = (speed / most) as f32 * (HEIGHT - 16.0);
        let x = rect.left() + n as f32 * step;
        Rect::from_min_max(pos2(x, rect.bottom() - height), pos2(x + step - 1.0, rect.bottom()))
    };
    for (n, (run, speed)) in shown.iter().enumerate() {
        let fill = if Some(*run) == selected { colour::nth(1) } else { colour::nth(0) };
        painter.rect_filled(at(n, *speed), 0.0, fill);
    }
    let font = egui::TextStyle::Small.resolve(ui.style());
    let legend = match shown.last() {
        Some((_, last)) => {
            format!("{} now, {} at most; {} tokens", words::speed(*last), words::speed(most), speeds.len())
        }
        None => "no token yet".into(),
    };
    painter.text(rect.left_top() + vec2(4.0, 2.0), egui::Align2::LEFT_TOP, legend, font, ui.visuals().text_color());
    let under = |p: egui::Pos2| shown.get(((p.x - rect.left()) / step) as usize);
    let hovered = response.hover_pos().and_then(under);
    if let Some((run, speed)) = hovered {
        let past = profile.runs[*run].past;
        response.clone().on_hover_text(format!("token at position {past}: {}", words::speed(*speed)));
    }
    response.interact_pointer_pos().filter(|_| response.clicked()).and_then(under).map(|(run, _)| *run)
}
