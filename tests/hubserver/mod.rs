//! A hub on the loopback interface, for tests of downloads: small, and as faulty as a test wants it.

#![allow(dead_code)]

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A request as the server saw it.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
}

impl Request {
    /// The first byte that a range asks for.
    pub fn from(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }

    pub fn is_file(&self) -> bool {
        self.method == "GET" && self.path.contains("/resolve/")
    }
}

/// What the server answers.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Closes the connection after this many bytes of the body.
    pub cut: Option<usize>,
    /// Pauses after each of the body's pieces of 4 KiB.
    pub slow: Duration,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        Reply { status, body: body.into(), ..Reply::default() }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.headers.push((name.into(), value.into()));
        self
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// A server that lives as long as the test's process.
pub struct Server {
    pub url: String,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let log = Arc::new(Mutex::new(Vec::new()));
        let (handler, seen): (Arc<Handler>, _) = (Arc::new(handler), log.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (handler, seen) = (handler.clone(), seen.clone());
                // A client that goes away in the middle is what many tests are about.
                std::thread::spawn(move || drop(serve(stream, &*handler, &seen)));
            }
        });
        Server { url, log }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().expect("the log").clone()
    }

    pub fn downloads(&self) -> Vec<Request> {
        self.requests().into_iter().filter(Request::is_file).collect()
    }
}

fn serve(mut stream: TcpStream, handler: &Handler, log: &Mutex<Vec<Request>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let mut words = first.split_whitespace().map(String::from);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(()) };
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.trim().to_ascii_lowercase(), value.trim().to_string());
    }
    let request = Request { method, path, headers };
    log.lock().expect("the log").push(request.clone());
    let reply = handler(&request);
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    if !reply.headers.iter().any(|(name, _)| name == "Content-Length") {
        head += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if request.method != "HEAD" {
        let body = &reply.body[..reply.cut.unwrap_or(reply.body.len()).min(reply.body.len())];
        for piece in body.chunks(4096) {
            stream.write_all(piece)?;
            if !reply.slow.is_zero() {
                std::thread::sleep(reply.slow);
            }
        }
    }
    stream.flush()
}

/// A repository with its files.
#[derive(Clone, Default)]
pub struct Repo {
    pub name: String,
    pub files: BTreeMap<String, Vec<u8>>,
    /// The listing tells no sizes and hashes: they must be asked for file by file.
    pub terse: bool,
}

impl Repo {
    pub fn new(name: &str, files: &[(&str, &[u8])]) -> Repo {
        let files = files.iter().map(|(path, bytes)| (path.to_string(), bytes.to_vec())).collect();
        Repo { name: name.into(), files, terse: false }
    }

    /// The answer of a hub in good health.
    pub fn answer(&self, request: &Request) -> Reply {
        if request.path == format!("/api/models/{}/revision/main?blobs=true", self.name) {
            return Reply::new(200, self.listing());
        }
        let prefix = format!("/{}/resolve/{COMMIT}/", self.name);
        let Some(bytes) = request.path.strip_prefix(&prefix).and_then(|path| self.files.get(path)) else {
            return Reply::new(404, "no such thing");
        };
        let whole = bytes.len();
        let reply = match request.from() {
            Some(from) if from >= whole => Reply::new(416, ""),
            Some(from) => {
                Reply::new(206, &bytes[from..]).header("Content-Range", format!("bytes {from}-{}/{whole}", whole - 1))
            }
            None => Reply::new(200, &bytes[..]),
        };
        reply.header("X-Linked-Etag", format!("\"{}\"", sha256(bytes))).header("X-Linked-Size", whole.to_string())
    }

    fn listing(&self) -> String {
        let row = |(path, bytes): (&String, &Vec<u8>)| match self.terse {
            true => format!(r#"{{"rfilename":"{path}"}}"#),
            false => format!(
                r#"{{"rfilename":"{path}","size":{0},"lfs":{{"sha256":"{1}","size":{0}}}}}"#,
                bytes.len(),
                sha256(bytes)
            ),
        };
        let rows: Vec<String> = self.files.iter().map(row).collect();
        format!(r#"{{"sha":"{COMMIT}","siblings":[{}]}}"#, rows.join(","))
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Bytes that differ everywhere, so that a piece in the wrong place shows.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut byte = || {
        // xorshift64: Marsaglia 2003
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| byte()).collect()
}
