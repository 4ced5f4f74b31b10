//! Where time goes: the runs of each kernel on each kind of weights, added up.

use crate::app::term;
use crate::profile::Profile;
use crate::profile::statistics::{Group, Phase, Total, totals as add_up};

/// The totals, most expensive first, and their names: `matmul/cpu ffn_down q4_0 [2048, 8192]`.
pub fn totals(profile: &Profile) -> Vec<(String, Total)> {
    let name = |t: &Total| {
        let weights = profile.kernels[t.kernel].src.first().filter(|_| t.weights > 0.0);
        format!("{} {}", t.name, weights.map_or("", String::as_str)).trim_end().to_owned()
    };
    add_up(profile, Group::Kernel, Phase::All).into_iter().map(|t| (name(&t), t)).collect()
}

/// A table of the totals for `tokens` tokens.
pub fn table(profile: &Profile, tokens: u32) -> String {
    let per_token = |n: f64| n / f64::from(tokens.max(1));
    let mut rows = vec![["KERNEL", "RUNS/TOKEN", "µs/TOKEN", "TIME", "WEIGHTS"].map(String::from).to_vec()];
    for (name, t) in totals(profile) {
        let rate = if t.weights > 0.0 { format!("{:.1} GB/s", t.weight_rate() / 1e9) } else { String::new() };
        rows.push(vec![
            name,
            format!("{:.2}", per_token(t.count as f64)),
            format!("{:.1}", per_token(t.total as f64 / 1e3)),
            format!("{:.1} %", 100.0 * t.fraction),
            rate,
        ]);
    }
    term::table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Event, KernelFacts};

    #[test]
    fn runs_of_one_kernel_are_added_up() {
        let kernel = |label: &str| KernelFacts {
            op: "matmul".into(),
            variant: "cpu".into(),
            label: label.into(),
            src: vec!["q8_0 [4, 32]".into()],
            weights: 136.0,
            ..KernelFacts::default()
        };
        let event = |kernel, length| Event { kernel, length, ..Event::default() };
        let profile = Profile {
            kernels: vec![kernel("attn_q"), kernel("ffn_up")],
            events: vec![event(0, 10), event(1, 50), event(0, 40)],
            ..Profile::default()
        };
        let all = totals(&profile);
        let (name, q) = all.iter().find(|(_, t)| t.count == 2).unwrap();
        assert_eq!((q.total, q.fraction, all.len()), (50, 0.5, 2));
        assert_eq!(name, "matmul/cpu attn_q q8_0 [4, 32]");
        assert!((q.weight_rate() - 272.0 / 50e-9).abs() < 1.0);
        assert!(table(&profile, 2).contains("1.00"));
    }
}
