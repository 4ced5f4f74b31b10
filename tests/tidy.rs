//! Holds the house to its rules (ARCHITECTURE.md): imports point down, files and functions stay readable, every room is on
//! the map, unsafe code and platform gates stay where they belong, formatting and lints are clean.

use std::path::{Path, PathBuf};

/// Rooms with their floor and the rooms they must not import although these lie lower.
const ROOMS: &[(&str, u32, &[&str])] = &[
    ("base", 0, &[]),
    ("simd", 1, &[]),
    ("quant", 2, &[]),
    ("gguf", 2, &[]),
    ("text", 2, &[]),
    ("ops", 3, &["gguf", "text"]),
    ("graph", 4, &["gguf", "text"]),
    ("cpu", 5, &["gguf", "text"]),
    ("gpu", 5, &["gguf", "text"]),
    ("arch", 5, &["text"]),
    ("state", 5, &["gguf", "text", "ops", "graph"]),
    ("sample", 5, &["gguf", "ops", "graph"]),
    ("model", 6, &[]),
    ("plan", 7, &["text"]),
    ("profile", 8, &["gguf", "text"]),
    ("run", 9, &[]),
    ("open", 10, &["text"]),
    ("chat", 10, &["ops", "graph", "gpu"]),
    ("app", 11, &[]),
];

/// Lines a file may have, tables of constants aside.
const FILE_LINES: usize = 450;
/// Lines a function may have.
const FN_LINES: usize = 65;

/// Where `unsafe` may stand.
const UNSAFE: &[&str] = &[
    "src/simd/",
    "src/gguf/source",
    "src/cpu/pool.rs",
    "src/gpu/budget.rs",
    "src/gpu/device.rs",
    "src/gpu/pipeline.rs",
    "src/gpu/pipeline_cache.rs",
    "src/main.rs",
];
/// Where `target_arch = "wasm32"` may stand.
const WASM: &[&str] = &["src/gguf/source", "src/cpu/pool.rs", "src/gpu/device.rs", "src/lib.rs"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn walk(dir: &Path, extension: &str, out: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") && !path.ends_with("node_modules") {
            walk(&path, extension, out);
        } else if path.extension().is_some_and(|e| e == extension) {
            out.push(path);
        }
    }
}

/// All files with an extension, as paths from the root, with their text.
fn files(dirs: &[&str], extension: &str) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    dirs.iter().for_each(|dir| walk(&root().join(dir), extension, &mut paths));
    paths.sort();
    assert!(!paths.is_empty(), "no .{extension} files under {dirs:?}");
    let name = |p: &Path| p.strip_prefix(root()).expect("under the root").to_string_lossy().replace('\\', "/");
    paths.iter().map(|p| (name(p), std::fs::read_to_string(p).expect("readable"))).collect()
}

fn report(rule: &str, problems: Vec<String>) {
    assert!(problems.is_empty(), "{rule}:\n  {}", problems.join("\n  "));
}

#[test]
fn imports_point_down() {
    let floor = |room: &str| ROOMS.iter().find(|(name, ..)| *name == room);
    let mut problems = Vec::new();
    for (path, text) in files(&["src"], "rs") {
        let Some(room) = path.strip_prefix("src/").and_then(|p| p.split_once('/')).map(|(room, _)| room) else {
            continue;
        };
        let Some((_, height, forbidden)) = floor(room) else {
            problems.push(format!("{path}: the room {room} has no floor in tests/tidy.rs"));
            continue;
        };
        for (n, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for part in code.split("crate::").skip(1) {
                let target: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let Some((_, other, _)) = floor(&target) else { continue };
                if target != room && (other >= height || forbidden.contains(&target.as_str())) {
                    problems.push(format!("{path}:{}: {room} must not import {target}", n + 1));
                }
            }
        }
    }
    report("imports point down only", problems);
}

#[test]
fn files_open_with_their_purpose_and_stay_readable() {
    let mut problems = Vec::new();
    for (path, text) in files(&["src", "tests", "benches"], "rs") {
        if !text.starts_with("//!") {
            problems.push(format!("{path}: the first line must be a //! comment that says what the file is for"));
        }
        let lines = text.lines().filter(|l| !is_table_row(l)).count();
        if lines > FILE_LINES {
            problems.push(format!("{path}: {lines} lines; more than {FILE_LINES} are several ideas"));
        }
        for (name, line, length) in functions(&text) {
            if length > FN_LINES {
                problems.push(format!("{path}:{line}: fn {name} has {length} lines; split it (at most {FN_LINES})"));
            }
        }
    }
    report("files and functions", problems);
}

/// Rows of constants: numbers, strings and structure, but no statements.
fn is_table_row(line: &str) -> bool {
    let line = line.trim();
    line.ends_with(',') && !line.contains("let ") && !line.contains("fn ") && !line.contains("=>")
}

/// Functions with the line they begin at and their length without table rows; found by indentation, as rustfmt lays it out.
fn functions(text: &str) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let head = line.trim_start();
        let qualifies = |word: &str| ["pub", "const", "async", "unsafe"].iter().any(|q| word.starts_with(q));
        let is_fn =
            format!(" {head}").split_once(" fn ").is_some_and(|(before, _)| before.split(' ').skip(1).all(qualifies));
        if !is_fn || line.ends_with(';') || line.ends_with('}') {
            continue;
        }
        let close = format!("{}}}", " ".repeat(indent));
        let Some(end) = lines[i..].iter().position(|l| *l == close) else { continue };
        let name = head.split("fn ").nth(1).unwrap_or_default().split(['(', '<']).next().unwrap_or_default();
        let length = lines[i..=i + end].iter().filter(|l| !is_table_row(l)).count();
        found.push((name.to_owned(), i + 1, length));
    }
    found
}

#[test]
fn unsafe_and_platform_gates_stay_where_they_belong() {
    let mut problems = Vec::new();
    for (path, text) in files(&["src"], "rs") {
        let allowed = |list: &[&str]| list.iter().any(|p| path.starts_with(p));
        for (n, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if (code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl"))
                && !allowed(UNSAFE)
            {
                problems.push(format!("{path}:{}: unsafe code belongs in {UNSAFE:?}", n + 1));
            }
            if code.contains("target_arch = \"wasm32\"") && !allowed(WASM) {
                problems.push(format!("{path}:{}: the wasm32 gate belongs in {WASM:?}", n + 1));
            }
            if code.contains("feature = \"")
                && !path.starts_with("src/app")
                && path != "src/lib.rs"
                && !path.starts_with("src/simd")
            {
                problems.push(format!("{path}:{}: feature gates belong in src/app and the manifest", n + 1));
            }
            if line.contains("todo!(") || line.contains("unimplemented!(") || line.contains("#[ignore") {
                problems.push(format!("{path}:{}: left undone", n + 1));
            }
        }
        problems.extend(unexplained(&text).map(|n| format!("{path}:{n}: unsafe code without a SAFETY comment")));
    }
    report("unsafe code and gates", problems);
}

/// The lines with unsafe code that no SAFETY comment explains: one within the lines before it, or one at the head of the file or module for every block.
fn unexplained(text: &str) -> impl Iterator<Item = usize> {
    const BEFORE: usize = 6;
    let lines: Vec<&str> = text.lines().collect();
    let all = text.contains("SAFETY of every `unsafe` block here");
    let is_unsafe = |line: &str| line.contains("unsafe {") || line.contains("unsafe impl");
    let explained = move |n: usize| lines[n.saturating_sub(BEFORE)..=n].iter().any(|line| line.contains("SAFETY"));
    let found: Vec<usize> = text.lines().enumerate().filter(|(_, line)| is_unsafe(line)).map(|(n, _)| n).collect();
    found.into_iter().filter(move |n| !all && !explained(*n)).map(|n| n + 1)
}

#[test]
fn only_gpu_speaks_wgpu_and_only_simd_speaks_std_arch() {
    let mut problems = Vec::new();
    for (path, text) in files(&["src"], "rs") {
        for (n, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if (code.contains("wgpu::") || code.contains("use wgpu")) && !path.starts_with("src/gpu/") {
                problems.push(format!("{path}:{}: wgpu belongs in src/gpu", n + 1));
            }
            if code.contains("std::arch::") && !path.starts_with("src/simd/") {
                problems.push(format!("{path}:{}: std::arch belongs in src/simd", n + 1));
            }
        }
    }
    report("one room owns each platform", problems);
}

#[test]
fn every_room_stands_on_the_map() {
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let mut problems = Vec::new();
    for dir in ["src", "tools"] {
        for entry in std::fs::read_dir(root().join(dir)).expect(dir).flatten().filter(|e| e.path().is_dir()) {
            let room = format!("{dir}/{}/", entry.file_name().to_string_lossy());
            if !map.contains(&room) {
                problems.push(format!("{room} does not stand in ARCHITECTURE.md"));
            }
        }
    }
    for row in map.lines().filter(|line| line.starts_with("| `src/") && line.contains("/` |")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let room = cells[1].trim_matches('`');
        let floor =
            ROOMS.iter().find(|(name, ..)| room == format!("src/{name}/")).map(|(_, floor, _)| floor.to_string());
        if floor.as_deref() != Some(cells[2]) {
            problems.push(format!("{room}: its floor is {floor:?} in tests/tidy.rs, {} on the map", cells[2]));
        }
        for file in cells[3].split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs") || name.ends_with('/')) {
            if !root().join(room).join(file).exists() {
                problems.push(format!("{room}{file} stands on the map and is not there"));
            }
        }
    }
    report("the map is whole", problems);
}

#[test]
fn the_top_level_is_fixed() {
    let known = [
        "Cargo.toml",
        "Cargo.lock",
        "src",
        "shaders",
        "tests",
        "benches",
        "tools",
        "README.md",
        "LICENSE",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "deny.toml",
        "rustfmt.toml",
        "target",
    ];
    let names =
        std::fs::read_dir(root()).expect("root").flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    let strangers = names.filter(|n| !n.starts_with('.') && !known.contains(&n.as_str())).collect();
    report("nothing new at the top level", strangers);
}
