//! How much memory a plan may use: what is free, less a margin, or what the user allows.

/// Memory of the GPU and of the system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// What the plan may use of the GPU's memory; `None` if nobody tells: then all is tried, and less if it fails.
    pub gpu: Option<u64>,
    /// All of the GPU's memory, where that is known.
    pub gpu_total: Option<u64>,
    /// What is kept free of it.
    pub margin: u64,
    /// What the plan may use of system memory; `None` if nobody tells.
    pub cpu: Option<u64>,
}

/// The margin left unasked: for the desktop, for the driver's own buffers, for what other programs will want.
const MARGIN: u64 = 1 << 30;
/// On small cards a tenth instead.
const MARGIN_PART: u64 = 10;

impl Budget {
    /// A GPU with `total` bytes, `free` of them, as far as these are known. A `margin` is kept free: the smaller of 1 GiB and a tenth
    /// of the total, unless the user says how much. A user's `limit` stands in the place of all this, but for more than there is.
    pub fn new(total: Option<u64>, free: Option<u64>, limit: Option<u64>, margin: Option<u64>) -> Budget {
        if let Some(limit) = limit {
            return Budget { gpu: Some(limit.min(total.unwrap_or(limit))), gpu_total: total, ..Budget::default() };
        }
        let margin = margin.unwrap_or_else(|| MARGIN.min(total.or(free).map_or(MARGIN, |t| t / MARGIN_PART)));
        let gpu = free.or(total).map(|free| free.saturating_sub(margin));
        Budget { gpu, gpu_total: total, margin, cpu: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_margin_is_kept_unless_a_limit_is_set() {
        let of = |total, free, limit, margin| Budget::new(total, free, limit, margin).gpu;
        assert_eq!(of(Some(24 * GIB), Some(20 * GIB), None, None), Some(19 * GIB));
        assert_eq!(of(Some(5 * GIB), Some(4 * GIB), None, None), Some(4 * GIB - GIB / 2));
        assert_eq!(of(Some(24 * GIB), None, None, Some(2 * GIB)), Some(22 * GIB));
        assert_eq!(of(Some(24 * GIB), Some(20 * GIB), Some(3), Some(2)), Some(3));
        assert_eq!(of(Some(24 * GIB), Some(20 * GIB), Some(100 * GIB), None), Some(24 * GIB));
        assert_eq!(of(Some(GIB), Some(5), None, None), Some(0));
        assert_eq!(of(None, None, None, None), None);
    }
}
