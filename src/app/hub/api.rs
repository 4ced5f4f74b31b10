//! The hub's API: which files a repository has, at which commit, and their sizes and hashes.

use super::http::Client;
use super::name::Repo;
use crate::base::{Error, ErrorKind, Result};
use serde::Deserialize;

/// A repository at one commit.
pub struct Listing {
    /// The commit that the branch `main` points to, in hexadecimal.
    pub commit: String,
    /// The files, by path.
    pub files: Vec<RemoteFile>,
}

/// A file of a repository.
#[derive(Debug, Clone)]
pub struct RemoteFile {
    /// The path inside the repository, with `/`.
    pub path: String,
    /// Bytes, where the listing tells them.
    pub size: Option<u64>,
    /// SHA-256 where the listing tells it, lower case.
    pub sha256: Option<String>,
}

/// A file that can be fetched: its size is known, and its name in the cache.
#[derive(Debug, Clone)]
pub struct Source {
    /// Where its bytes are.
    pub url: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256, unless the hub tells none (small files outside LFS).
    pub sha256: Option<String>,
    /// The name of the blob in the cache: the hash.
    pub etag: String,
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

/// The files of `repo` at the head of its main branch.
pub fn list(client: &Client, repo: &Repo) -> Result<Listing> {
    let url = format!("{}/api/models/{repo}/revision/main?blobs=true", client.endpoint());
    let text = client.text(&url)?;
    let nonsense = |why: String| {
        Error::new(ErrorKind::Network, format!("the hub's answer makes no sense: {why}")).help("check HF_ENDPOINT")
    };
    if text.trim_start().starts_with('<') {
        return Err(Error::new(ErrorKind::Network, "the hub's answer is a web page, not a list of files")
            .help("perhaps this network wants a login first: open any page in a browser; or check HF_ENDPOINT"));
    }
    let info: Info = serde_json::from_str(&text).map_err(|e| nonsense(e.to_string()))?;
    if !is_hex(&info.sha, 7..=64) {
        return Err(nonsense(format!("commit {:?}", info.sha)));
    }
    // A name that would lead out of the cache is passed over like a file that is not there.
    let files = info.siblings.into_iter().filter(|s| is_safe(&s.rfilename)).map(|s| {
        let (sha256, lfs_size) = s.lfs.map_or((None, None), |lfs| (lfs.sha256, lfs.size));
        let sha256 = sha256.map(|h| h.to_ascii_lowercase()).filter(|h| is_hex(h, 64..=64));
        RemoteFile { path: s.rfilename, size: lfs_size.or(s.size), sha256 }
    });
    Ok(Listing { commit: info.sha, files: files.collect() })
}

/// How to fetch `file`. Asks the hub once more if the listing told no size or hash.
pub fn source(client: &Client, repo: &Repo, commit: &str, file: &RemoteFile) -> Result<Source> {
    let url = format!("{}/{repo}/resolve/{commit}/{}", client.endpoint(), encode(&file.path));
    if let (Some(size), Some(sha256)) = (file.size, &file.sha256) {
        return Ok(Source { url, size, sha256: Some(sha256.clone()), etag: sha256.clone() });
    }
    let headers = client.head(&url)?;
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_string);
    let size = header("x-linked-size").or_else(|| header("content-length")).and_then(|v| v.parse().ok());
    let etag = header("x-linked-etag").or_else(|| header("etag"));
    let etag = etag.map(|tag| tag.trim_start_matches("W/").trim_matches('"').to_ascii_lowercase());
    let place = || format!("hf:{repo}, {}", file.path);
    let (Some(size), Some(etag)) = (size.or(file.size), etag.filter(|tag| is_hex(tag, 32..=64))) else {
        return Err(Error::new(ErrorKind::Network, "the hub tells neither size nor hash of this file")
            .at(place())
            .help("check HF_ENDPOINT, or download the file by other means and name its path"));
    };
    Ok(Source { url, size, sha256: is_hex(&etag, 64..=64).then(|| etag.clone()), etag })
}

pub(super) fn is_hex(text: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether a path from the hub stays inside the folder it is joined to, on every system.
pub(super) fn is_safe(path: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.ends_with(['.', ' ']);
    path.len() <= 512 && !path.contains(['\\', ':', '\0']) && path.split('/').all(plain)
}

/// Percent-encodes a path for an address; slashes stay.
pub fn encode(path: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"-_.~/".contains(&b);
    path.bytes().map(|b| if keep(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_from_the_hub_stay_in_the_cache() {
        for good in ["m.gguf", "Q4_0/m.gguf", ".gitattributes", "a b.gguf"] {
            assert!(is_safe(good), "{good}");
        }
        for bad in ["", "/etc/passwd", "../m.gguf", "a/../../m", "a//b", "C:/m", "a\\b", "a/.", "a\0", "a/..."] {
            assert!(!is_safe(bad), "{bad:?}");
        }
    }

    #[test]
    fn addresses_are_encoded() {
        assert_eq!(encode("a b/ü#1.gguf"), "a%20b/%C3%BC%231.gguf");
    }
}
