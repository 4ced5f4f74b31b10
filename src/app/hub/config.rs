//! Where the cache lies and how the hub is reached: the environment's answers, with Hugging Face's names.
//!
//! The cache is shared with other tools, so its place is theirs:
//! `HF_HUB_CACHE` → `HF_HOME/hub` → `$XDG_CACHE_HOME/huggingface/hub` → `~/.cache/huggingface/hub`.

use crate::base::{Error, Result};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The hub asked where `HF_ENDPOINT` names no other.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// What the hub client needs to know. Tests build their own; programs use [`Config::from_env`].
#[derive(Clone)]
pub struct Config {
    /// The folder that holds `models--user--repo`.
    pub cache: PathBuf,
    /// Scheme, host and port of the hub, without a slash at the end.
    pub endpoint: String,
    /// The access token; goes to the endpoint's origin and nowhere else.
    pub token: Option<String>,
    /// Only the cache: no network.
    pub offline: bool,
    /// How often a request is tried again after a broken connection or a server's error.
    pub retries: u32,
    /// The first pause between tries; doubles each time.
    pub backoff: Duration,
    /// Ways to call pip, tried in turn.
    pub pip: Vec<Vec<OsString>>,
    /// A file of root certificates (PEM) to trust instead of the built-in ones.
    pub certificates: Option<PathBuf>,
    /// Goes through the proxy that `HTTPS_PROXY` and its like name.
    pub proxy: bool,
    /// Shows no progress.
    pub quiet: bool,
}

impl Config {
    /// The settings of this process's environment. Fails if no cache folder can be told.
    pub fn from_env() -> Result<Config> {
        Config::from_vars(&|name| std::env::var_os(name).filter(|v| !v.is_empty()), std::env::home_dir())
    }

    /// The settings that `var` answers for, with `home` for the user's folder.
    pub fn from_vars(var: &dyn Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Result<Config> {
        let path = |name: &str| var(name).map(PathBuf::from);
        let text = |name: &str| var(name).and_then(|v| v.into_string().ok()).map(|v| v.trim().to_string());
        let cache_home = path("XDG_CACHE_HOME").or_else(|| Some(home?.join(".cache")));
        let hf_home = path("HF_HOME").or_else(|| Some(cache_home?.join("huggingface")));
        let cache = path("HF_HUB_CACHE").or_else(|| Some(hf_home.as_ref()?.join("hub"))).ok_or_else(|| {
            Error::usage("no folder for models: the user has no home folder").help("set HF_HUB_CACHE to a folder")
        })?;
        let token_file = path("HF_TOKEN_PATH").or_else(|| Some(hf_home?.join("token")));
        let token = text("HF_TOKEN").or_else(|| read_token(&token_file?)).filter(|t| !t.is_empty());
        Ok(Config {
            cache,
            endpoint: endpoint(var),
            token,
            offline: text("HF_HUB_OFFLINE").is_some_and(|v| is_true(&v)),
            retries: 5,
            backoff: Duration::from_millis(500),
            pip: default_pip(),
            proxy: true,
            quiet: false,
            certificates: path("SSL_CERT_FILE").or_else(|| path("REQUESTS_CA_BUNDLE")),
        })
    }
}

/// The hub that the environment names, or the usual one.
pub fn endpoint(var: &dyn Fn(&str) -> Option<OsString>) -> String {
    let named = var("HF_ENDPOINT").and_then(|v| v.into_string().ok()).filter(|v| !v.trim().is_empty());
    named.as_deref().map_or(DEFAULT_ENDPOINT, str::trim).trim_end_matches('/').to_string()
}

// The token must not reach a log through `{:?}`.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("cache", &self.cache)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

/// Hugging Face's idea of "yes" in a variable.
fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
}

fn read_token(path: &Path) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_string())
}

fn default_pip() -> Vec<Vec<OsString>> {
    let ways: &[&[&str]] = if cfg!(windows) {
        &[&["py", "-m", "pip"], &["python", "-m", "pip"], &["pip"]]
    } else {
        &[&["python3", "-m", "pip"], &["python", "-m", "pip"], &["pip3"], &["pip"]]
    };
    ways.iter().map(|way| way.iter().map(OsString::from).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(vars: &[(&str, &str)]) -> Config {
        let vars: Vec<(String, OsString)> = vars.iter().map(|(k, v)| (k.to_string(), v.into())).collect();
        let var = |name: &str| vars.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone());
        Config::from_vars(&var, Some("/home/ann".into())).unwrap()
    }

    #[test]
    fn the_cache_is_where_other_tools_have_it() {
        let all = [("HF_HUB_CACHE", "/a"), ("HF_HOME", "/b"), ("XDG_CACHE_HOME", "/c")];
        assert_eq!(config(&all).cache, Path::new("/a"));
        assert_eq!(config(&all[1..]).cache, Path::new("/b/hub"));
        assert_eq!(config(&all[2..]).cache, Path::new("/c/huggingface/hub"));
        assert_eq!(config(&[]).cache, Path::new("/home/ann/.cache/huggingface/hub"));
        let nowhere = Config::from_vars(&|_| None, None).unwrap_err();
        assert!(nowhere.to_string().contains("HF_HUB_CACHE"), "{nowhere}");
    }

    #[test]
    fn offline_is_said_in_words_or_numbers() {
        for yes in ["1", "ON", "yes", "True"] {
            assert!(config(&[("HF_HUB_OFFLINE", yes)]).offline, "{yes}");
        }
        assert!(!config(&[("HF_HUB_OFFLINE", "0")]).offline);
        assert!(!config(&[]).offline);
    }

    #[test]
    fn the_token_never_shows_in_debug_output() {
        let config = config(&[("HF_TOKEN", "hf_secret"), ("HF_ENDPOINT", "http://localhost:1/")]);
        assert_eq!(config.token.as_deref(), Some("hf_secret"));
        assert_eq!(config.endpoint, "http://localhost:1");
        assert!(!format!("{config:?}").contains("secret"));
    }
}
