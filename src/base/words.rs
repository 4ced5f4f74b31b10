//! Numbers as people read them.

/// A size: `513 KiB`, `92.1 MiB`, `8.72 GiB`.
pub fn human(bytes: u64) -> String {
    match bytes {
        0..0x20_0000 => format!("{:.0} KiB", bytes as f64 / 1024.0),
        0x20_0000..0x4000_0000 => format!("{:.1} MiB", bytes as f64 / (1u64 << 20) as f64),
        _ => format!("{:.2} GiB", bytes as f64 / (1u64 << 30) as f64),
    }
}
