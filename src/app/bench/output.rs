//! The forms of results: a markdown table, CSV, JSON, lines of JSON, SQL. Each row is printed when it is known.

use super::row::{self, Row};
use crate::app::term;
use crate::base::{Error, Result};
use serde_json::Value as Json;
use std::str::FromStr;

/// A form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Format {
    Md,
    Csv,
    Json,
    Jsonl,
    Sql,
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "md" => Format::Md,
            "csv" => Format::Csv,
            "json" => Format::Json,
            "jsonl" => Format::Jsonl,
            "sql" => Format::Sql,
            _ => return Err(Error::usage("write md, csv, json, jsonl or sql")),
        })
    }
}

/// Columns of the markdown table whose values depend on the setting; shown where they are not the usual ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shown {
    /// Layers on the GPU, if one is used.
    pub layers: bool,
    /// Tokens given at a time.
    pub batch: bool,
    /// Tokens computed at once.
    pub ubatch: bool,
    /// Types of the cache.
    pub kv: bool,
}

/// Prints rows in one form.
pub struct Printer {
    format: Format,
    shown: Shown,
    rows: usize,
}

impl Printer {
    /// Nothing is printed before the first row.
    pub fn new(format: Format, shown: Shown) -> Self {
        Printer { format, shown, rows: 0 }
    }

    /// Prints a row, and what stands before the first.
    pub fn row(&mut self, row: &Row) -> Result<()> {
        let first = self.rows == 0;
        self.rows += 1;
        let head = |text: String| if first { text } else { String::new() };
        term::print(match self.format {
            Format::Md => head(self.md_head()) + &self.md(row),
            Format::Csv => head(csv(row.fields().iter().map(|(name, _)| name.to_string()))) + &csv(quoted(row)),
            Format::Json => format!("{}{:#}", if first { "[\n" } else { ",\n" }, row.to_json()),
            Format::Jsonl => format!("{}\n", row.to_json()),
            Format::Sql => head(sql_table(row)) + &sql(row),
        })?;
        if let (Format::Md, Some(profile)) = (self.format, &row.kernels) {
            term::note(format_args!("{}\n{}", row.name(), super::kernels::table(profile, row.test.tokens())));
        }
        Ok(())
    }

    /// Prints what stands after the last row.
    pub fn finish(self) -> Result<()> {
        match (self.format, self.rows) {
            (Format::Json, 0) => term::print("[]\n"),
            (Format::Json, _) => term::print("\n]\n"),
            _ => Ok(()),
        }
    }

    /// Heading, width and value of every column; a negative width aligns to the left.
    fn columns(&self, row: Option<&Row>) -> Vec<(&'static str, isize, String)> {
        let text = |f: &dyn Fn(&Row) -> String| row.map(f).unwrap_or_default();
        let mut all = vec![
            ("model", -24, text(&|r| r.model.kind.clone())),
            ("size", 10, text(&|r| term::bytes(r.model.bytes))),
            ("params", 9, text(&|r| count(r.model.weights))),
            ("backend", -8, text(&|r| r.device.backend.clone())),
            ("threads", 7, text(&|r| r.device.threads.to_string())),
            ("simd", 8, text(&|r| r.device.simd.into())),
        ];
        let mut optional = |shown, name, value| {
            if shown {
                all.push((name, 8, value));
            }
        };
        optional(self.shown.layers, "ngl", text(&|r| row::layers(r.setting.layers).to_string()));
        optional(self.shown.batch, "n_batch", text(&|r| r.setting.batch.to_string()));
        optional(self.shown.ubatch, "n_ubatch", text(&|r| r.setting.ubatch.to_string()));
        optional(self.shown.kv, "type_k", text(&|r| r.setting.kv.keys.to_string()));
        optional(self.shown.kv, "type_v", text(&|r| r.setting.kv.values.to_string()));
        all.extend([
            ("test", 15, text(&Row::name)),
            ("t/s", 18, text(&|r| format!("{:.2} ± {:.2}", r.speed().0, r.speed().1))),
            ("MB/token", 9, text(&|r| format!("{:.2}", r.need.bytes / 1e6))),
            ("GB/s", 8, text(&|r| format!("{:.2}", r.rate() / 1e9))),
            ("Gop/s", 8, text(&|r| format!("{:.1}", r.need.operations * r.speed().0 / 1e9))),
            ("% of peak", 14, text(&|r| r.of_peak().map_or("–".into(), |(f, of)| format!("{:.0} {of}", 100.0 * f)))),
            ("ops/token", 9, text(&|r| format!("{:.1}", r.dispatches))),
        ]);
        all
    }

    fn md(&self, row: &Row) -> String {
        line(self.columns(Some(row)).into_iter().map(|(_, width, value)| padded(&value, width)))
    }

    fn md_head(&self) -> String {
        let columns = self.columns(None);
        let names = line(columns.iter().map(|(name, width, _)| padded(name, *width)));
        names
            + &line(columns.iter().map(|(_, width, _)| {
                let dashes = "-".repeat(width.unsigned_abs());
                if *width < 0 { dashes } else { format!("{}:", &dashes[1..]) }
            }))
    }
}

fn line(cells: impl Iterator<Item = String>) -> String {
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

fn padded(text: &str, width: isize) -> String {
    let n = width.unsigned_abs();
    if width < 0 { format!("{text:<n$}") } else { format!("{text:>n$}") }
}

/// `1.04 B`, `134.52 M`.
pub fn count(n: u64) -> String {
    match n {
        0..1_000_000 => format!("{:.2} K", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} M", n as f64 / 1e6),
        _ => format!("{:.2} B", n as f64 / 1e9),
    }
}

/// A value without JSON's quotes; truth as a number.
fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Bool(yes) => u8::from(*yes).to_string(),
        Json::Null => String::new(),
        other => other.to_string(),
    }
}

fn csv(cells: impl Iterator<Item = String>) -> String {
    format!("{}\n", cells.collect::<Vec<_>>().join(","))
}

fn quoted(row: &Row) -> impl Iterator<Item = String> {
    row.fields().into_iter().map(|(_, value)| format!("\"{}\"", plain(&value).replace('"', "\"\"")))
}

fn sql_table(row: &Row) -> String {
    let column = |(name, value): &(&str, Json)| {
        let kind = match value {
            Json::String(_) => "TEXT",
            Json::Number(n) if n.is_f64() => "REAL",
            Json::Null => "REAL",
            _ => "INTEGER",
        };
        format!("  {name} {kind}")
    };
    let columns: Vec<String> = row.fields().iter().map(column).collect();
    format!("CREATE TABLE IF NOT EXISTS llama_bench (\n{}\n);\n\n", columns.join(",\n"))
}

fn sql(row: &Row) -> String {
    let names: Vec<&str> = row.fields().iter().map(|(name, _)| *name).collect();
    let value = |(_, value): &(&str, Json)| match value {
        Json::Null => "NULL".to_owned(),
        value => format!("'{}'", plain(value).replace('\'', "''")),
    };
    let values: Vec<String> = row.fields().iter().map(value).collect();
    format!("INSERT INTO llama_bench ({}) VALUES ({});\n", names.join(", "), values.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_told_as_llama_bench_tells_them() {
        assert_eq!((count(1_040_218_112), count(134_515_008)), ("1.04 B".into(), "134.52 M".into()));
        assert_eq!(count(999), "1.00 K");
    }

    #[test]
    fn cells_are_padded_by_characters() {
        assert_eq!((padded("±", 3), padded("±", -3)), ("  ±".to_owned(), "±  ".to_owned()));
    }
}
