//! Numbers as people read them.

/// A number with three digits, more if there are more before the point.
fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn scaled(value: f64, step: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut unit = 0;
    while value.abs() >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    format!("{} {}", digits(value), units[unit])
}

/// `1.23 ms`, of nanoseconds.
pub fn time(ns: f64) -> String {
    scaled(ns, 1000.0, &["ns", "µs", "ms", "s"])
}

/// `93.8 MiB`.
pub fn bytes(n: f64) -> String {
    scaled(n, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// `12.3 GB/s`.
pub fn rate(per_second: f64) -> String {
    scaled(per_second, 1000.0, &["B/s", "kB/s", "MB/s", "GB/s", "TB/s"])
}

/// `45.6 GFLOP/s`.
pub fn flops(per_second: f64) -> String {
    scaled(per_second, 1000.0, &["FLOP/s", "kFLOP/s", "MFLOP/s", "GFLOP/s", "TFLOP/s", "PFLOP/s"])
}

/// `56.6 M`.
pub fn count(n: f64) -> String {
    scaled(n, 1000.0, &["", "k", "M", "G", "T"]).trim_end().to_owned()
}

/// `42.0 %`.
pub fn percent(part: f64) -> String {
    format!("{} %", digits(100.0 * part))
}

/// `23.4 t/s`.
pub fn speed(tokens_per_second: f64) -> String {
    format!("{} t/s", digits(tokens_per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        assert_eq!((time(950.0).as_str(), time(1_234_567.0).as_str()), ("950 ns", "1.23 ms"));
        assert_eq!(time(-12_345.0), "-12.3 µs");
        assert_eq!((rate(12.34e9).as_str(), flops(0.5).as_str()), ("12.3 GB/s", "0.50 FLOP/s"));
        assert_eq!((bytes(98_350_000.0).as_str(), percent(0.4204).as_str()), ("93.8 MiB", "42.0 %"));
        assert_eq!(speed(123.4), "123 t/s");
    }
}
