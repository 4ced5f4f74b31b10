//! From a shader file to real WGSL: `#import name`, `#if FLAG` / `#if !FLAG` / `#else` / `#end`, and a generated header.
//!
//! Imports stand once each, wherever they are first named; `#import quant` is the file of the pass's weight format. There
//! are no text macros: sizes are `const`s in the header, and everything between the directives is WGSL as it is.

use crate::base::{Error, Result};
use crate::ops::Pass;
use include_dir::{Dir, include_dir};
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The shader files, as they were when the crate was compiled.
static SHADERS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/shaders");

/// The flag that makes subgroup operations available.
pub const SUBGROUPS: &str = "SUBGROUPS";
/// The flag that makes `f16` available.
pub const F16: &str = "F16";

/// The flag that makes matrices of subgroups available. No browser has them.
pub const COOP: &str = "COOP";

/// Who reads the expanded text. They differ in the `enable` lines: naga rejects `enable subgroups;`, browsers require it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// naga, the translator of native builds.
    Naga,
    /// The compilers of browsers: Tint (Chromium), and whatever follows the WGSL standard.
    Browser,
}

/// A shader without directives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expanded {
    /// WGSL.
    pub text: String,
    /// The file and line that each line of `text` came from; `None` for the generated header.
    pub lines: Vec<Option<(String, usize)>>,
}

impl Expanded {
    /// Where line `line` (from 1) of the text came from: `shaders/add.wgsl:12`.
    pub fn place(&self, line: usize) -> String {
        match line.checked_sub(1).and_then(|i| self.lines.get(i)) {
            Some(Some((file, line))) => format!("shaders/{file}.wgsl:{line}"),
            _ => format!("generated header:{line}"),
        }
    }
}

/// The text of `shaders/<name>.wgsl`.
pub fn source(name: &str) -> Option<&'static str> {
    SHADERS.get_file(format!("{name}.wgsl"))?.contents_utf8()
}

/// The names of all shader files, imported ones too, without `.wgsl`.
pub fn names() -> Vec<String> {
    fn walk(dir: &Dir<'static>, names: &mut Vec<String>) {
        names.extend(dir.files().filter_map(|f| Some(f.path().to_str()?.strip_suffix(".wgsl")?.replace('\\', "/"))));
        dir.dirs().for_each(|d| walk(d, names));
    }
    let mut all = Vec::new();
    walk(&SHADERS, &mut all);
    all.sort_unstable();
    all
}

/// A number that is another one for other shaders, or for another version of this crate: what was found out with them is of no use then.
pub(super) fn fingerprint() -> u64 {
    let mut hasher = DefaultHasher::new();
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    names().iter().for_each(|name| (name, source(name)).hash(&mut hasher));
    hasher.finish()
}

/// The WGSL of `pass` for `target`. Errors name file and line.
pub fn expand(pass: &Pass, target: Target) -> Result<Expanded> {
    expand_with(pass, target, &|name| source(name).map(str::to_owned))
}

/// As [`expand`], with the files from `source`.
fn expand_with(pass: &Pass, target: Target, source: &dyn Fn(&str) -> Option<String>) -> Result<Expanded> {
    let mut text = String::new();
    if target == Target::Browser && pass.flags.contains(&SUBGROUPS) {
        text.push_str("enable subgroups;\n");
    }
    if pass.flags.contains(&F16) {
        text.push_str("enable f16;\n");
    }
    if pass.flags.contains(&COOP) {
        text.push_str("enable wgpu_cooperative_matrix;\n");
    }
    for (name, value) in &pass.consts {
        writeln!(text, "const {name}: u32 = {value}u;").expect("a string takes any text");
    }
    let lines = vec![None; text.lines().count()];
    let mut expander = Expander { pass, source, out: Expanded { text, lines }, imported: Vec::new() };
    expander.import(pass.shader)?;
    Ok(expander.out)
}

struct Expander<'a> {
    pass: &'a Pass,
    source: &'a dyn Fn(&str) -> Option<String>,
    out: Expanded,
    imported: Vec<String>,
}

/// One open `#if`.
struct Branch {
    line: usize,
    /// Whether the condition holds.
    holds: bool,
    in_else: bool,
}

impl Branch {
    fn live(&self) -> bool {
        self.holds != self.in_else
    }
}

impl Expander<'_> {
    /// Adds file `name`, unless it is there already.
    fn import(&mut self, name: &str) -> Result<()> {
        if self.imported.iter().any(|n| n == name) {
            return Ok(());
        }
        self.imported.push(name.to_owned());
        let source = (self.source)(name).ok_or_else(|| Error::format(format!("there is no shaders/{name}.wgsl")))?;
        let mut open: Vec<Branch> = Vec::new();
        for (i, line) in source.lines().enumerate() {
            let place = || format!("shaders/{name}.wgsl:{}", i + 1);
            match line.trim().strip_prefix('#') {
                Some(directive) => self.directive(directive, i + 1, &mut open).map_err(|e| e.at(place()))?,
                None if open.iter().all(Branch::live) => {
                    self.out.text.push_str(line);
                    self.out.text.push('\n');
                    self.out.lines.push(Some((name.to_owned(), i + 1)));
                }
                None => {}
            }
        }
        match open.last() {
            Some(branch) => Err(Error::format("#if without #end").at(format!("shaders/{name}.wgsl:{}", branch.line))),
            None => Ok(()),
        }
    }

    fn directive(&mut self, directive: &str, line: usize, open: &mut Vec<Branch>) -> Result<()> {
        let words: Vec<&str> = directive.split_whitespace().collect();
        match words[..] {
            ["if", flag] => {
                let (name, wanted) = flag.strip_prefix('!').map_or((flag, true), |name| (name, false));
                open.push(Branch { line, holds: self.pass.flags.contains(&name) == wanted, in_else: false });
            }
            ["else"] => match open.last_mut() {
                Some(branch) if !branch.in_else => branch.in_else = true,
                Some(_) => return Err(Error::format("a second #else")),
                None => return Err(Error::format("#else without #if")),
            },
            ["end"] => {
                open.pop().ok_or_else(|| Error::format("#end without #if"))?;
            }
            ["import", _] if !open.iter().all(Branch::live) => {}
            ["import", "quant"] => match self.pass.quant {
                Some(dtype) => self.import(&format!("quant/{dtype}"))?,
                None => return Err(Error::format("#import quant in a pass without a weight format")),
            },
            ["import", name] => self.import(name)?,
            _ => return Err(Error::format(format!("#{directive} is none of #import, #if, #else, #end"))),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::DType;

    fn run(files: &[(&str, &str)], flags: &[&'static str], quant: Option<DType>) -> Result<Expanded> {
        let pass = Pass { shader: "main", flags: flags.to_vec(), quant, consts: vec![("WG", 64)], ..Pass::default() };
        let source = |name: &str| files.iter().find(|(n, _)| *n == name).map(|(_, text)| text.to_string());
        expand_with(&pass, Target::Browser, &source)
    }

    #[test]
    fn imports_once_and_nests_conditions() {
        let files = [
            (
                "main",
                "#import a\n#import a\n#if X\nx\n#if !Y\nxy\n#else\nxY\n#end\n#else\n#import missing\nno\n#end\nend",
            ),
            ("a", "#import quant\nA"),
            ("quant/q8_0", "Q"),
        ];
        let out = run(&files, &["X", SUBGROUPS], Some(DType::Q8_0)).unwrap();
        assert_eq!(out.text, "enable subgroups;\nconst WG: u32 = 64u;\nQ\nA\nx\nxy\nend\n");
        assert_eq!(out.place(6), "shaders/main.wgsl:6");
        assert_eq!(out.place(3), "shaders/quant/q8_0.wgsl:1");
        assert_eq!(out.place(1), "generated header:1");
        assert!(run(&files, &["X", "Y"], Some(DType::Q8_0)).unwrap().text.contains("xY\n"));
    }

    #[test]
    fn errors_name_file_and_line() {
        let error = |main: &str, a: &str| run(&[("main", main), ("a", a)], &[], None).unwrap_err().to_string();
        assert_eq!(error("\n#if X\n", ""), "shaders/main.wgsl:2: #if without #end");
        assert_eq!(error("#end", ""), "shaders/main.wgsl:1: #end without #if");
        assert_eq!(error("#else", ""), "shaders/main.wgsl:1: #else without #if");
        assert_eq!(error("#if X\n#else\n#else\n#end", ""), "shaders/main.wgsl:3: a second #else");
        assert_eq!(error("#import b", ""), "shaders/main.wgsl:1: there is no shaders/b.wgsl");
        assert!(
            error("#import a", "\n#define x").starts_with("shaders/main.wgsl:1, shaders/a.wgsl:2: #define x is none")
        );
        assert!(error("#import quant", "").contains("without a weight format"));
    }
}
