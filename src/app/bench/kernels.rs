//! Where time goes: the runs of each kernel on each kind of weights, added up.

use crate::app::term;
use crate::run::Event;

/// All runs of one kernel on weights of one type.
#[derive(Debug, Clone, PartialEq)]
pub struct Total {
    /// `matmul/cpu ffn_down q4_0 [2048, 8192]`.
    pub name: String,
    /// How often it ran.
    pub runs: usize,
    /// Nanoseconds together.
    pub ns: u64,
    /// Part of all kernels' time.
    pub fraction: f64,
    /// Bytes of weights read together.
    pub weights: f64,
}

impl Total {
    /// Bytes of weights per second.
    pub fn rate(&self) -> f64 {
        self.weights / (self.ns.max(1) as f64 / 1e9)
    }
}

/// The totals, most expensive first.
pub fn totals(events: &[Event]) -> Vec<Total> {
    let mut all: Vec<Total> = Vec::new();
    let sum: u64 = events.iter().map(|e| e.length).sum();
    for e in events {
        let weights = if e.weights > 0.0 { e.src[0].as_str() } else { "" };
        let name = format!("{}/{} {} {weights}", e.op, e.variant, e.label).trim_end().to_owned();
        let at = all.iter().position(|t| t.name == name).unwrap_or_else(|| {
            all.push(Total { name, runs: 0, ns: 0, fraction: 0.0, weights: 0.0 });
            all.len() - 1
        });
        let total = &mut all[at];
        total.runs += 1;
        total.ns += e.length;
        total.weights += e.weights;
    }
    all.iter_mut().for_each(|t| t.fraction = t.ns as f64 / sum.max(1) as f64);
    all.sort_by_key(|t| std::cmp::Reverse(t.ns));
    all
}

/// A table of the totals for `tokens` tokens.
pub fn table(events: &[Event], tokens: u32) -> String {
    let per_token = |n: f64| n / f64::from(tokens.max(1));
    let mut rows = vec![["KERNEL", "RUNS/TOKEN", "µs/TOKEN", "TIME", "WEIGHTS"].map(String::from).to_vec()];
    for t in totals(events) {
        let rate = if t.weights > 0.0 { format!("{:.1} GB/s", t.rate() / 1e9) } else { String::new() };
        rows.push(vec![
            t.name.clone(),
            format!("{:.2}", per_token(t.runs as f64)),
            format!("{:.1}", per_token(t.ns as f64 / 1e3)),
            format!("{:.1} %", 100.0 * t.fraction),
            rate,
        ]);
    }
    term::table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_one_kernel_are_added_up() {
        let event = |label, length| Event {
            op: "matmul",
            label,
            variant: "cpu",
            layer: Some(0),
            src: vec!["q8_0 [4, 32]".into()],
            dst: String::new(),
            weights: 136.0,
            start: 0,
            length,
        };
        let all = totals(&[event("attn_q", 10), event("ffn_up", 50), event("attn_q", 40)]);
        assert_eq!((all[0].runs, all[0].ns, all[0].fraction), (2, 50, 0.5));
        assert_eq!(all[0].name, "matmul/cpu attn_q q8_0 [4, 32]");
        assert!((all[0].rate() - 272.0 / 50e-9).abs() < 1.0);
        assert!(table(&[event("attn_q", 10)], 2).contains("0.50"));
    }
}
