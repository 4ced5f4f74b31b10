//! `--list-devices`: the GPUs that can be used, and the CPU.

use super::term;
use crate::base::Result;
use crate::gpu;
use crate::simd::Level;
use serde_json::json;

/// Prints the list; the numbers are those of `--device gpu:N`.
pub fn list(as_json: bool) -> Result<()> {
    let adapters = gpu::list();
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    if as_json {
        let row = |(i, a): (usize, &gpu::AdapterInfo)| {
            json!({
                "device": format!("gpu:{i}"), "name": a.name, "backend": a.backend, "driver": a.driver, "kind": a.kind,
                "software": a.software, "features": a.features, "max_binding": a.max_binding, "max_buffer": a.max_buffer,
            })
        };
        let mut rows: Vec<_> = adapters.iter().enumerate().map(row).collect();
        rows.push(json!({"device": "cpu", "cores": cores, "simd": Level::best().name()}));
        return term::print(format_args!("{:#}\n", serde_json::Value::from(rows)));
    }
    let mut rows = vec![["DEVICE", "NAME", "BACKEND", "KIND", "DRIVER"].map(String::from).to_vec()];
    for (i, a) in adapters.iter().enumerate() {
        rows.push(vec![format!("gpu:{i}"), a.name.clone(), a.backend.clone(), a.kind.into(), a.driver.clone()]);
    }
    rows.push(vec![
        "cpu".into(),
        format!("{cores} cores, {}", Level::best().name()),
        String::new(),
        String::new(),
        String::new(),
    ]);
    term::print(term::table(&rows))
}
