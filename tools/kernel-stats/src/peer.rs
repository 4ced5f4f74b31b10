//! Kernels of others: SPIR-V files of a folder.
//!
//! Beside `NAME.spv` there may be `NAME.json` with what the file cannot say: `{"specialization": {"0": 64}, "subgroup": 64, "macs": 32}`:
//! values of specialization constants by their ids, the size that subgroups must have, and the multiplications and additions of a thread
//! in one step of the main loop.

use crate::spirv::{MAGIC, Module};
use serde_json::Value;
use std::path::Path;

/// The modules of `folder`, by name.
pub fn modules(folder: &Path) -> Result<Vec<(String, Module)>, String> {
    let at = |path: &Path, e: String| format!("{}: {e}", path.display());
    let entries = std::fs::read_dir(folder).map_err(|e| at(folder, e.to_string()))?;
    let mut paths: Vec<_> = entries.flatten().map(|e| e.path()).filter(|p| is_spirv(p)).collect();
    paths.sort();
    if paths.is_empty() {
        return Err(at(folder, "there are no .spv files".into()));
    }
    let module = |path: &std::path::PathBuf| {
        let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let bytes = std::fs::read(path).map_err(|e| at(path, e.to_string()))?;
        let words = words(&bytes).map_err(|e| at(path, e))?;
        let beside = path.with_extension("json");
        let text = if beside.is_file() { std::fs::read_to_string(&beside) } else { Ok("{}".into()) };
        let more = text.map_err(|e| e.to_string()).and_then(|text| described(&text)).map_err(|e| at(&beside, e))?;
        Ok((name, Module { words, ..more }))
    };
    paths.iter().map(module).collect()
}

fn is_spirv(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "spv")
}

/// Words of either byte order.
fn words(bytes: &[u8]) -> Result<Vec<u32>, String> {
    let (chunks, rest) = bytes.as_chunks::<4>();
    let little: Vec<u32> = chunks.iter().map(|c| u32::from_le_bytes(*c)).collect();
    match little.first() {
        Some(&MAGIC) if rest.is_empty() => Ok(little),
        Some(first) if rest.is_empty() && first.swap_bytes() == MAGIC => {
            Ok(little.into_iter().map(u32::swap_bytes).collect())
        }
        _ => Err("this is not SPIR-V".into()),
    }
}

fn described(text: &str) -> Result<Module, String> {
    let all: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let mut module = Module { words: Vec::new(), specialization: Vec::new(), subgroup: None, macs: None };
    for (key, value) in all.as_object().ok_or("an object is expected")? {
        let number = |v: &Value| {
            let n = v.as_u64().and_then(|n| u32::try_from(n).ok());
            n.ok_or(format!("{key} holds {v}, which is no number of 32 bits"))
        };
        match key.as_str() {
            "subgroup" => module.subgroup = Some(number(value)?),
            "macs" => module.macs = Some(number(value)?),
            "specialization" => {
                for (id, v) in value.as_object().ok_or("specialization is an object: {\"ID\": VALUE}")? {
                    let id = id.parse().map_err(|_| format!("specialization: {id} is no id"))?;
                    module.specialization.push((id, number(v)?));
                }
            }
            _ => return Err(format!("{key} is none of specialization, subgroup, macs")),
        }
    }
    Ok(module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_modules_is_read_with_what_stands_beside_them() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        assert!(modules(folder.path()).unwrap_err().ends_with("there are no .spv files"));
        put("b.spv", &MAGIC.to_be_bytes());
        put("a.spv", &[MAGIC, 7].map(u32::to_le_bytes).concat());
        put("a.json", br#"{"specialization": {"3": 64}, "subgroup": 32, "macs": 8}"#);
        let all = modules(folder.path()).unwrap();
        let a = Module { words: vec![MAGIC, 7], specialization: vec![(3, 64)], subgroup: Some(32), macs: Some(8) };
        let b = Module { words: vec![MAGIC], specialization: vec![], subgroup: None, macs: None };
        assert_eq!(all, [("a".to_owned(), a), ("b".to_owned(), b)]);
        put("a.json", br#"{"macs": "many"}"#);
        assert!(
            modules(folder.path()).unwrap_err().ends_with("a.json: macs holds \"many\", which is no number of 32 bits")
        );
        put("a.json", br#"{"mac": 3}"#);
        assert!(modules(folder.path()).unwrap_err().ends_with("mac is none of specialization, subgroup, macs"));
        put("a.spv", b"spv");
        assert!(modules(folder.path()).unwrap_err().ends_with("a.spv: this is not SPIR-V"));
    }
}
