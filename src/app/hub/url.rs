//! Addresses copied from the hub's pages: `https://huggingface.co/user/repo`, with `/tree/main`, `/blob/main/FILE` or
//! `/resolve/main/FILE` behind it, with `hf.co` for the host, or without `https://`.

use super::config::endpoint;
use super::http::origin;
use super::name::{HubName, Repo};
use crate::base::{Error, Result};

/// Hosts of the hub. The one that `HF_ENDPOINT` names is another.
const HOSTS: &[&str] = &["huggingface.co", "hf.co", "www.huggingface.co", "www.hf.co"];

/// What an address names; `None` for a text that is no address.
pub fn parse(text: &str) -> Option<Result<HubName>> {
    is_one(text).then(|| read(text, &here()).map_err(|e| e.at(text)))
}

/// Whether a text is an address, be it one of the hub's or not.
pub fn is_one(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let of_hub = |host: &&str| lower.strip_prefix(*host).is_some_and(|rest| rest.starts_with('/'));
    lower.starts_with("https://") || lower.starts_with("http://") || HOSTS.iter().any(of_hub)
}

/// The host that `HF_ENDPOINT` names, with its port.
fn here() -> String {
    let endpoint = endpoint(&|name| std::env::var_os(name));
    origin(&endpoint).map_or(String::new(), |(_, host)| host)
}

fn read(text: &str, here: &str) -> Result<HubName> {
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let (_, host) = origin(&with_scheme).unwrap_or_default();
    if host != here && !HOSTS.contains(&host.as_str()) {
        return Err(Error::usage("this is not an address of the hub").help(format!(
            "fetch the file by other means and name it, or set HF_ENDPOINT=https://{host} if there is a hub like Hugging Face's"
        )));
    }
    let path = with_scheme.splitn(4, '/').nth(3).unwrap_or_default();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let path = decode(path.split('#').next().unwrap_or_default());
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let (user, repo) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (repo, mut want) = repo.split_once(':').map_or((repo, None), |(repo, want)| (repo, Some(want.to_owned())));
    if repo.is_empty() || ["datasets", "spaces", "models", "api", "docs", "collections"].contains(&user) {
        let help = "copy that of a model: https://huggingface.co/user/repo";
        return Err(Error::usage("this is not the page of a model").help(help));
    }
    let (page, branch) = (parts.next(), parts.next());
    let is_inside = matches!(page, Some("tree" | "blob" | "resolve"));
    let names_commit = is_inside || page == Some("commit");
    if let Some(other) = branch.filter(|branch| names_commit && !["main", "HEAD"].contains(branch)) {
        return Err(Error::usage(format!("the branch or commit {other}"))
            .help("models are fetched from the branch main: leave out what follows the repository's name"));
    }
    // Else it is a page about the repository: its discussions, its settings.
    let rest: Vec<&str> = if is_inside { parts.collect() } else { Vec::new() };
    // The page that shows what is in a file names it behind the address.
    let shown = query.split('&').find_map(|pair| pair.strip_prefix("show_file_info=")).map(decode);
    let is_file = |path: &str| path.to_ascii_lowercase().ends_with(".gguf");
    match (rest.last(), shown) {
        (_, Some(file)) if is_file(&file) => want = Some(file),
        (Some(file), _) if is_file(file) => want = Some(rest.join("/")),
        // A folder is named by the quantization that lies in it.
        (Some(folder), _) => want = Some((*folder).to_owned()),
        (None, _) => {}
    }
    if want.as_deref() == Some("") {
        return Err(Error::usage("it ends with a colon").help("name a quantization behind it: :Q4_K_M"));
    }
    Ok(HubName { repo: Repo::parse(&format!("{user}/{repo}"))?, want, wheel: None })
}

/// Undoes percent-encoding; what is none stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| *first == b'%');
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Option<String> {
        Some(read(text, "127.0.0.1:8000").ok()?.to_string())
    }

    #[test]
    fn pages_of_the_hub_name_models() {
        for (text, want) in [
            ("https://huggingface.co/u/r", "hf:u/r"),
            ("https://huggingface.co/u/r/", "hf:u/r"),
            ("https://HuggingFace.co/u/r?library=llama-cpp#x", "hf:u/r"),
            ("https://huggingface.co/u/r/tree/main", "hf:u/r"),
            ("https://huggingface.co/u/r/tree/main/UD-Q4_K_XL", "hf:u/r:UD-Q4_K_XL"),
            ("https://huggingface.co/u/r/blob/main/m-Q4_0.gguf", "hf:u/r:m-Q4_0.gguf"),
            ("https://huggingface.co/u/r/resolve/main/q/my%20m%C3%A9.gguf?download=true", "hf:u/r:q/my mé.gguf"),
            ("https://huggingface.co/u/r?show_file_info=m-Q8_0.gguf", "hf:u/r:m-Q8_0.gguf"),
            ("https://huggingface.co/u/r/discussions/3", "hf:u/r"),
            ("http://hf.co/u/r:Q8_0", "hf:u/r:Q8_0"),
            ("hf.co/u/r:Q8_0", "hf:u/r:Q8_0"),
            ("huggingface.co/u/r", "hf:u/r"),
            ("http://127.0.0.1:8000/u/r", "hf:u/r"),
            ("https://user:secret@hf.co/u/r", "hf:u/r"),
        ] {
            assert!(is_one(text), "{text}");
            assert_eq!(named(text).as_deref(), Some(want), "{text}");
        }
    }

    #[test]
    fn other_addresses_say_what_to_do() {
        let says = |text: &str| read(text, "huggingface.co").unwrap_err().to_string();
        assert!(says("https://example.com/m.gguf").contains("HF_ENDPOINT=https://example.com"));
        assert!(says("https://huggingface.co.evil/u/r").contains("not an address of the hub"));
        assert!(says("https://huggingface.co/datasets/u/r").contains("not the page of a model"));
        assert!(says("https://huggingface.co/u").contains("not the page of a model"));
        assert!(says("https://huggingface.co/u/r/tree/v2").contains("branch or commit v2"));
        assert!(says("https://huggingface.co/../r").contains("not a repository"));
        assert!(says("hf.co/u/r:").contains("colon"));
        assert!(!is_one("hf.coop/u/r") && !is_one("a/b") && !is_one("huggingface.co"));
    }

    #[test]
    fn percents_are_decoded() {
        assert_eq!(decode("a%20b%c3%A9%zz%2"), "a bé%zz%2");
    }
}
