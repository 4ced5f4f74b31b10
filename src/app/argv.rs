//! llama.cpp's spelling of flags, rewritten before parsing: `-ngl 99`, `-hf user/repo`, `--top_k 40`.
//!
//! The parser reads `-ngl` as `-n -g -l`; so these names become their long forms first.

use std::ffi::OsString;

/// Flags with one dash and several letters, and the long forms they stand for.
pub const SHORT: &[(&str, &str)] = &[
    ("-ngl", "--n-gpu-layers"),
    ("-ot", "--override-tensor"),
    ("-cmoe", "--cpu-moe"),
    ("-ncmoe", "--n-cpu-moe"),
    ("-nkvo", "--no-kv-offload"),
    ("-hf", "--hf-repo"),
    ("-hfr", "--hf-repo"),
    ("-fa", "--flash-attn"),
    ("-ctk", "--cache-type-k"),
    ("-ctv", "--cache-type-v"),
    ("-sys", "--system-prompt"),
    ("-sysf", "--system-prompt-file"),
    ("-dev", "--device"),
    ("-ub", "--ubatch-size"),
    ("-pg", "--prompt-gen"),
];

/// The arguments with every such flag in its long form. What follows `--` is left alone.
pub fn rewrite(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut literal = false;
    let one = |arg: OsString| {
        literal |= arg == "--";
        match arg.to_str() {
            Some(text) if !literal && text.starts_with('-') => long_form(text).map_or(arg, OsString::from),
            _ => arg,
        }
    };
    args.into_iter().map(one).collect()
}

fn long_form(arg: &str) -> Option<String> {
    let (flag, value) = match arg.split_once('=') {
        Some((flag, _)) => (flag, &arg[flag.len()..]),
        None => (arg, ""),
    };
    if let Some((_, long)) = SHORT.iter().find(|(short, _)| *short == flag) {
        return Some(format!("{long}{value}"));
    }
    let underscored = flag.starts_with("--") && flag.contains('_') && !flag.contains(' ');
    underscored.then(|| format!("{}{value}", flag.replace('_', "-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(args: &[&str]) -> Vec<String> {
        rewrite(args.iter().map(OsString::from)).into_iter().map(|a| a.into_string().unwrap()).collect()
    }

    #[test]
    fn short_names_become_long_ones() {
        assert_eq!(
            rewritten(&["x", "-ngl", "99", "-hf=u/r:Q8_0", "-n", "4", "--top_k", "1", "--n_gpu_layers=a_b"]),
            ["x", "--n-gpu-layers", "99", "--hf-repo=u/r:Q8_0", "-n", "4", "--top-k", "1", "--n-gpu-layers=a_b"]
        );
    }

    #[test]
    fn prompts_are_left_alone() {
        let prompts = ["x", "-p", "the -ngl flag", "some_name", "--not a_flag", "--", "-ngl", "--top_k"];
        assert_eq!(rewritten(&prompts), prompts);
    }
}
