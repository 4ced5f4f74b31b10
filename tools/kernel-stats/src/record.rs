//! What was found, kernel by kernel, and the file it is kept in.

use serde_json::{Map, Value, json};
use std::fmt::Write;

macro_rules! row {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A kernel's figures. Counts are of one thread: of a step of the main loop where the shader says what a step computes,
        /// of the whole kernel elsewhere.
        #[derive(Debug, Clone, Copy, Default, PartialEq)]
        pub struct Row { $($(#[$doc])* pub $name: f64,)* }

        impl Row {
            /// The figures' names, in the order of [`values`](Self::values).
            pub const COLUMNS: &[&str] = &[$(stringify!($name),)*];

            /// Nothing at all.
            pub const ZERO: Row = Row { $($name: 0.0,)* };

            /// All figures.
            pub fn values(&self) -> Vec<f64> {
                vec![$(self.$name,)*]
            }

            /// The figures that `get` has for their names.
            pub fn read(get: impl Fn(&str) -> Option<f64>) -> Row {
                Row { $($name: get(stringify!($name)).unwrap_or_default(),)* }
            }
        }
    };
}

row! {
    /// Threads of a subgroup.
    subgroup,
    /// Vector registers.
    vgprs,
    /// Scalar registers.
    sgprs,
    /// Subgroups that fit a SIMD at once.
    waves,
    /// Registers that were spilled.
    spills,
    /// Bytes of scratch memory.
    scratch,
    /// Bytes of workgroup memory.
    lds,
    /// Multiplications and additions of a step; 0 if the shader does not say.
    macs,
    /// Instructions.
    all,
    /// Vector instructions; dot products and matrices are among them.
    vector,
    /// Dot products of bytes or halves.
    dot,
    /// Products of matrices.
    matrix,
    /// Scalar instructions.
    scalar,
    /// Loads of scalars.
    smem,
    /// Accesses to workgroup memory.
    local,
    /// Loads of a byte.
    load1,
    /// Loads of 2 bytes.
    load2,
    /// Loads of 4 bytes.
    load4,
    /// Loads of 8 bytes.
    load8,
    /// Loads of 12 bytes.
    load12,
    /// Loads of 16 bytes.
    load16,
    /// Stores.
    stores,
    /// Barriers.
    barriers,
    /// Branches, those of loops included.
    branches,
    /// Round trips to memory, one after the other: waits for loads that were begun after the one before had ended.
    round_trips,
    /// Loads before the first wait for one.
    first,
    /// Most loads in flight.
    flight,
    /// Bytes that these bring.
    flight_bytes,
    /// Branches within innermost loops that load, those that make the loop left out.
    load_branches,
    /// Innermost loops that load and run once at the most.
    single_loops,
}

impl Row {
    /// Loads by their bytes.
    pub fn loads(&self) -> [(u32, f64); 6] {
        [(1, self.load1), (2, self.load2), (4, self.load4), (8, self.load8), (12, self.load12), (16, self.load16)]
    }

    /// Vector instructions per multiplication and addition, or all of them.
    pub fn vector_rate(&self) -> f64 {
        self.vector / self.per()
    }

    /// What counts are divided by.
    pub fn per(&self) -> f64 {
        if self.macs > 0.0 { self.macs } else { 1.0 }
    }
}

/// A kernel on one family of cards.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// `rdna2`
    pub family: String,
    /// The table it stands in.
    pub group: String,
    /// Its name.
    pub name: String,
    /// Its figures.
    pub row: Row,
}

/// Everything that was found with one compiler.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    /// `Mesa 22.3.6`
    pub driver: String,
    /// Family by family.
    pub entries: Vec<Entry>,
}

fn number(v: f64) -> String {
    let v = (v * 100.0).round() / 100.0;
    format!("{v}")
}

impl Record {
    /// The figures of a kernel.
    pub fn row(&self, family: &str, name: &str) -> Option<&Row> {
        self.entries.iter().find(|e| e.family == family && e.name == name).map(|e| &e.row)
    }

    /// Families, in order.
    pub fn families(&self) -> Vec<&str> {
        let mut all: Vec<&str> = self.entries.iter().map(|e| e.family.as_str()).collect();
        all.dedup();
        all
    }

    /// As text: a kernel is a line, so that changes show line by line.
    pub fn to_json(&self) -> String {
        let columns = Row::COLUMNS.iter().map(|c| format!("{c:?}")).collect::<Vec<_>>().join(",");
        let mut out = format!("{{\n\"driver\": {},\n\"columns\": [{columns}],\n\"families\": {{", json!(self.driver));
        let (mut family, mut group) = ("", "");
        for e in &self.entries {
            let (new_family, new_group) = (e.family != family, e.family != family || e.group != group);
            let close = match (family, new_family, new_group) {
                ("", ..) => "",
                (_, true, _) => "\n}},",
                (_, _, true) => "\n},",
                _ => ",",
            };
            out.push_str(close);
            if new_family {
                write!(out, "\n{}: {{", json!(e.family)).expect("a string takes any text");
            }
            if new_group {
                write!(out, "\n{}: {{", json!(e.group)).expect("a string takes any text");
            }
            let row = e.row.values().into_iter().map(number).collect::<Vec<_>>().join(",");
            write!(out, "\n{}: [{row}]", json!(e.name)).expect("a string takes any text");
            (family, group) = (&e.family, &e.group);
        }
        out.push_str(if self.entries.is_empty() { "}\n}\n" } else { "\n}}}\n}\n" });
        out
    }

    /// What [`to_json`](Self::to_json) wrote.
    pub fn parse(text: &str) -> Result<Record, String> {
        let all: Value = serde_json::from_str(text).map_err(|e| format!("no record of kernel-stats: {e}"))?;
        let wrong = |what: &str| format!("no record of kernel-stats: {what}");
        let columns: Option<Vec<&str>> =
            all["columns"].as_array().map(|c| c.iter().filter_map(Value::as_str).collect());
        let columns = columns.ok_or(wrong("there are no columns"))?;
        let map = |v: &Value| v.as_object().cloned().ok_or(wrong("families, groups and kernels are objects"));
        let mut entries = Vec::new();
        for (family, groups) in map(&all["families"])? {
            for (group, kernels) in map(&groups)? {
                for (name, row) in map(&kernels)? as Map<String, Value> {
                    let at = |column: &str| columns.iter().position(|c| *c == column);
                    let row = Row::read(|column| row.get(at(column)?)?.as_f64());
                    entries.push(Entry { family: family.clone(), group: group.clone(), name, row });
                }
            }
        }
        Ok(Record { driver: all["driver"].as_str().unwrap_or_default().to_owned(), entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let entry = |family: &str, group: &str, name: &str, vector| Entry {
            family: family.into(),
            group: group.into(),
            name: name.into(),
            row: Row { vector, macs: 32.0, waves: 10.0, ..Row::default() },
        };
        let entries = vec![
            entry("rdna2", "A", "a \"1\"", 7.25),
            entry("rdna2", "A", "a 2", 8.0),
            entry("rdna2", "B", "b", 1.0),
            entry("vega", "A", "a 2", 9.0),
        ];
        let record = Record { driver: "Mesa 22.3.6".into(), entries };
        assert_eq!(Record::parse(&record.to_json()), Ok(record.clone()));
        assert_eq!(record.families(), ["rdna2", "vega"]);
        let none = Record::default();
        assert_eq!(Record::parse(&none.to_json()), Ok(none));
    }

    #[test]
    fn a_figure_that_a_record_does_not_have_is_zero_and_no_record_is_an_error() {
        let old = r#"{"driver": "x", "columns": ["waves", "gone"], "families": {"vega": {"A": {"a": [3, 4]}}}}"#;
        let row = *Record::parse(old).unwrap().row("vega", "a").unwrap();
        assert_eq!(row, Row { waves: 3.0, ..Row::default() });
        for bad in ["", "[]", "{}", r#"{"columns": [], "families": 3}"#] {
            assert!(Record::parse(bad).unwrap_err().starts_with("no record of kernel-stats"), "{bad}");
        }
    }
}
