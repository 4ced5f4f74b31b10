//! Which files of a repository make the wanted model.
//!
//! A quantization is read from the file's name, as everybody does it: `model-Q4_K_M.gguf`,
//! `Q4_K_M/model-Q4_K_M-00001-of-00002.gguf`. Large models are split; the parts belong together.

use crate::base::{Error, Result};
use regex::Regex;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The order tried where the user names no quantization: the usual compromise first, then what loses little, then what is small.
pub const PREFERENCE: &[&str] = &[
    "Q4_K_M", "Q8_0", "Q5_K_M", "Q4_K_S", "Q6_K", "Q4_0", "Q4_1", "IQ4_NL", "Q5_K_S", "Q5_0", "Q5_1", "MXFP4",
    "Q3_K_M", "BF16", "F16", "F32",
];

static SPLIT: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^(?P<stem>.*)-(?P<part>\d{5})-of-(?P<of>\d{5})$").expect("valid"));

static QUANT: LazyLock<Regex> = LazyLock::new(|| {
    let formats = r"(?:UD-)?(?:I?Q\d[0-9A-Z_]*|TQ\d_\d|MXFP4(?:_MOE)?|NVFP4|BF16|FP?16|FP?32)";
    // Before it may stand what is no letter and no digit: `model-Q4_0`, `my model (Q4_0)`.
    Regex::new(&format!(r"(?i)(?:^|[^0-9a-z])(?P<quant>{formats})[)\]]?$")).expect("valid")
});

/// A model as it lies in a repository: its parts, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The path without split suffix and extension.
    pub stem: String,
    /// The quantization in capitals, as far as the name tells it.
    pub quant: Option<String>,
    /// Paths inside the repository; more than one where the file is split.
    pub files: Vec<String>,
    /// Whether every part is there.
    pub whole: bool,
}

impl Candidate {
    /// What to call it in a list and after the colon of a name.
    pub fn label(&self) -> &str {
        self.quant.as_deref().unwrap_or(&self.files[0])
    }

    fn matches(&self, want: &str) -> bool {
        let base = |path: &str| path.rsplit('/').next().unwrap_or(path).to_string();
        self.quant.as_deref().is_some_and(|q| q.eq_ignore_ascii_case(want))
            || self.stem.eq_ignore_ascii_case(want)
            || self.files.iter().any(|f| f.eq_ignore_ascii_case(want) || base(f).eq_ignore_ascii_case(want))
    }
}

/// The quantization that a file's name (without extension and split suffix) tells.
fn quant_of(stem: &str) -> Option<String> {
    Some(QUANT.captures(stem)?["quant"].to_ascii_uppercase().replace("FP16", "F16").replace("FP32", "F32"))
}

/// All models among `paths`. Vision projectors, importance matrices and vocabularies are none.
pub fn candidates<'a>(paths: impl IntoIterator<Item = &'a str>) -> Vec<Candidate> {
    let mut groups: BTreeMap<(String, usize), Vec<(usize, String)>> = BTreeMap::new();
    for path in paths {
        let Some(stem) = path.strip_suffix(".gguf").or_else(|| path.strip_suffix(".GGUF")) else { continue };
        let base = stem.rsplit('/').next().unwrap_or(stem).to_ascii_lowercase();
        if ["mmproj", "imatrix", "ggml-vocab"].iter().any(|no| base.contains(no)) {
            continue;
        }
        let (stem, part, of) = match SPLIT.captures(stem) {
            Some(c) => (c["stem"].to_string(), c["part"].parse().unwrap_or(0), c["of"].parse().unwrap_or(0)),
            None => (stem.to_string(), 1, 1),
        };
        groups.entry((stem, of)).or_default().push((part, path.to_string()));
    }
    let group = |((stem, of), mut parts): ((String, usize), Vec<(usize, String)>)| {
        parts.sort();
        let whole = parts.len() == of && parts.iter().enumerate().all(|(i, (part, _))| *part == i + 1);
        Candidate { quant: quant_of(&stem), stem, files: parts.into_iter().map(|(_, path)| path).collect(), whole }
    };
    groups.into_iter().map(group).collect()
}

/// The model that `want` asks for, whole or not.
pub fn wanted<'c>(all: &'c [Candidate], want: &str) -> Option<&'c Candidate> {
    all.iter().find(|c| c.matches(want)).or_else(|| {
        // "Q4_K_XL" may be meant where only "UD-Q4_K_XL" is there.
        all.iter().find(|c| {
            c.quant.as_deref().and_then(|q| q.strip_prefix("UD-")).is_some_and(|q| q.eq_ignore_ascii_case(want))
        })
    })
}

/// The model that `want` asks for, or the preferred one. `place` names the repository in errors.
pub fn pick(all: &[Candidate], want: Option<&str>, place: &str) -> Result<Candidate> {
    if all.is_empty() {
        return Err(Error::usage("no GGUF file in this repository")
            .at(place)
            .help("look for a repository whose name ends with -GGUF"));
    }
    let found = match want {
        Some(want) => wanted(all, want),
        None => PREFERENCE.iter().find_map(|q| all.iter().find(|c| c.matches(q))).or_else(|| all.first()),
    };
    let Some(found) = found else {
        let labels: Vec<&str> = all.iter().map(Candidate::label).collect();
        return Err(Error::usage(format!("no file for {:?}", want.unwrap_or_default()))
            .at(place)
            .help(format!("there is {}", labels.join(", "))));
    };
    if !found.whole {
        return Err(Error::format(format!("{} is split, and parts of it are missing", found.stem))
            .at(place)
            .help("choose another quantization, or tell the repository's owner"));
    }
    Ok(found.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPO: &[&str] = &[
        ".gitattributes",
        "README.md",
        "m-IQ2_XXS.gguf",
        "m-Q4_K_M.gguf",
        "m-Q8_0.gguf",
        "m-f16.gguf",
        "mmproj-m-f16.gguf",
        "UD-Q6_K_XL/m-UD-Q6_K_XL-00002-of-00002.gguf",
        "UD-Q6_K_XL/m-UD-Q6_K_XL-00001-of-00002.gguf",
        "m-Q3_K_M-00001-of-00002.gguf",
    ];

    fn picked(want: Option<&str>) -> Result<Vec<String>> {
        Ok(pick(&candidates(REPO.iter().copied()), want, "hf:u/m")?.files)
    }

    #[test]
    fn picks_by_quantization_in_any_case_and_by_file() {
        assert_eq!(picked(None).unwrap(), ["m-Q4_K_M.gguf"]);
        assert_eq!(picked(Some("q8_0")).unwrap(), ["m-Q8_0.gguf"]);
        assert_eq!(picked(Some("F16")).unwrap(), ["m-f16.gguf"]);
        assert_eq!(picked(Some("m-f16.gguf")).unwrap(), ["m-f16.gguf"]);
    }

    #[test]
    fn split_files_come_whole_and_in_order_or_not_at_all() {
        let parts = ["UD-Q6_K_XL/m-UD-Q6_K_XL-00001-of-00002.gguf", "UD-Q6_K_XL/m-UD-Q6_K_XL-00002-of-00002.gguf"];
        assert_eq!(picked(Some("q6_k_xl")).unwrap(), parts);
        assert_eq!(picked(Some("UD-Q6_K_XL")).unwrap(), parts);
        let e = picked(Some("Q3_K_M")).unwrap_err().to_string();
        assert!(e.contains("missing"), "{e}");
    }

    #[test]
    fn an_error_lists_what_there_is() {
        let e = picked(Some("Q5_0")).unwrap_err().to_string();
        assert!(e.contains("Q4_K_M, Q8_0, F16") && e.contains("UD-Q6_K_XL") && !e.contains("mmproj"), "{e}");
        assert!(pick(&[], None, "hf:u/m").unwrap_err().to_string().contains("no GGUF"));
    }

    #[test]
    fn names_tell_their_quantization() {
        let cases = [
            ("SmolLM2-135M-Instruct.Q4_1", Some("Q4_1")),
            ("qwen2.5-0.5b-instruct-q4_k_m", Some("Q4_K_M")),
            ("gpt-oss-20b-mxfp4", Some("MXFP4")),
            ("x-fp16", Some("F16")),
            ("x-bf16", Some("BF16")),
            ("Q4_0/x", None),
            ("x-IQ4_XS", Some("IQ4_XS")),
            ("qwen", None),
            ("my model (v1) Q4_0", Some("Q4_0")),
            ("my model (Q8_0)", Some("Q8_0")),
            ("x [UD-Q4_K_XL]", Some("UD-Q4_K_XL")),
            ("x_q4_0", Some("Q4_0")),
            ("xq4_0", None),
        ];
        for (stem, want) in cases {
            assert_eq!(quant_of(stem).as_deref(), want, "{stem}");
        }
    }

    #[test]
    fn without_a_known_name_the_only_file_is_taken() {
        let all = candidates(["model.gguf"]);
        assert_eq!(pick(&all, None, "x").unwrap().label(), "model.gguf");
    }
}
