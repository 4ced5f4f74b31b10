//! The graph as text, one node a line, for `--dump-graph` and snapshot tests.

use super::{Graph, Storage, Tensor};
use std::fmt;

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for node in &self.nodes {
            let layer = node.layer.map_or("-".to_owned(), |l| l.to_string());
            write!(f, "{layer:>3} {:<16} {} = {:?}(", node.label, self.name(&node.dst), node.op)?;
            for (i, src) in node.src.iter().enumerate() {
                write!(f, "{}{}", if i > 0 { ", " } else { "" }, self.name(src))?;
            }
            writeln!(f, ")")?;
        }
        let rules: Vec<String> = self.fused.iter().map(|(rule, count)| format!("{rule} {count}")).collect();
        if !rules.is_empty() {
            writeln!(f, "fused {}", rules.join(", "))?;
        }
        match &self.output {
            Some(output) => writeln!(f, "output {}", self.name(output)),
            None => Ok(()),
        }
    }
}

impl Graph {
    fn name(&self, tensor: &Tensor) -> String {
        let base = match self.storage(tensor) {
            Storage::Weight(name) => name.clone(),
            Storage::Const(label, _) => label.clone(),
            Storage::Input(input) => format!("{input:?}").to_lowercase(),
            Storage::Cache(cache) => format!("{:?}_cache.{}", cache.part, cache.layer).to_lowercase(),
            Storage::Temp => format!("%{}", tensor.buf.0),
        };
        let offset = if tensor.offset > 0 { format!("+{}", tensor.offset) } else { String::new() };
        format!("{base}{offset}:{:?}", tensor.meta)
    }
}
