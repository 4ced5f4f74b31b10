//! `web` as browsers meet it: the page's files and models with ranges, nothing else, and nobody else's pages.
#![cfg(feature = "cli")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use wgpu_llm::low_level::base::DType;
use wgpu_llm::low_level::gguf::{Metadata, Writer};

fn program(cache: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgpu-llm"));
    command.env_clear().env("HF_HUB_CACHE", cache).env("HOME", cache).arg("web").stdin(Stdio::null());
    command
}

struct Server {
    child: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves a page of three small files and a model of one tensor.
fn serve() -> Server {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("page");
    std::fs::create_dir(&page).unwrap();
    for name in ["index.html", "wgpu_llm.js", "wgpu_llm_bg.wasm"] {
        std::fs::write(page.join(name), format!("this is {name}")).unwrap();
    }
    std::fs::write(folder.path().join("secret"), "not for browsers").unwrap();
    let mut writer = Writer::new(Metadata::new()).unwrap();
    writer.tensor("ones", DType::F32, [64usize]).unwrap();
    let model = folder.path().join("a model.gguf");
    writer.write_file(&model, |_, out| out.put(bytemuck::cast_slice(&[1f32; 64]))).unwrap();
    let mut command = program(folder.path());
    command.args(["--port", "0", "--page"]).arg(&page).arg("-m").arg(&model);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program starts");
    let mut url = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut url).expect("an address");
    let address = url.trim().trim_start_matches("http://").trim_end_matches('/').to_owned();
    Server { child, address, _folder: folder }
}

impl Server {
    /// Head and body of the answer to a request with these lines after the first.
    fn ask(&self, first: &str, fields: &str) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        write!(stream, "{first} HTTP/1.1\r\n{fields}\r\n").expect("sent");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("an answer");
        let end = all.windows(4).position(|w| w == b"\r\n\r\n").expect("a head") + 4;
        (String::from_utf8_lossy(&all[..end]).into_owned(), all[end..].to_vec())
    }

    fn get(&self, path: &str, fields: &str) -> (String, Vec<u8>) {
        self.ask(&format!("GET {path}"), &format!("Host: {}\r\n{fields}", self.address))
    }
}

#[test]
fn pages_and_models_are_served_with_types_and_ranges() {
    let server = serve();
    assert!(server.address.starts_with("127.0.0.1:"), "{}", server.address);
    let (head, body) = server.get("/", "");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/html") && body == b"this is index.html", "{head}");
    let (head, _) = server.get("/wgpu_llm_bg.wasm?x", "");
    assert!(head.contains("application/wasm"), "{head}");
    let models: serde_json::Value = serde_json::from_slice(&server.get("/models.json", "").1).expect("JSON");
    let (url, bytes) = (models[0]["url"].as_str().unwrap(), models[0]["bytes"].as_u64().unwrap());
    assert_eq!((models[0]["name"].as_str(), url), (Some("a model.gguf"), "/models/0/a%20model.gguf"));
    let (head, whole) = server.get(url, "");
    assert_eq!(whole.len() as u64, bytes, "{head}");
    let (head, part) = server.get(url, "Range: bytes=2-9\r\n");
    assert!(head.starts_with("HTTP/1.1 206") && head.contains(&format!("bytes 2-9/{bytes}")), "{head}");
    assert_eq!(part, whole[2..10]);
    assert!(server.get(url, &format!("Range: bytes={bytes}-\r\n")).0.starts_with("HTTP/1.1 416"));
    let (head, body) = server.ask(&format!("HEAD {url}"), &format!("Host: {}\r\n", server.address));
    assert!(head.contains(&format!("Content-Length: {bytes}")) && body.is_empty(), "{head}");
}

#[test]
fn nothing_else_is_served_and_to_nobody_else() {
    let server = serve();
    for path in ["/secret", "/../secret", "/..%2fsecret", "/models/1/a", "//etc/passwd", "/page"] {
        assert!(server.get(path, "").0.starts_with("HTTP/1.1 404"), "{path}");
    }
    for host in ["", "Host: example.com\r\n", "Host: 127.0.0.1:1\r\n"] {
        let (head, body) = server.ask("GET /", host);
        assert!(head.starts_with("HTTP/1.1 403") && body.is_empty(), "{host}: {head}");
    }
    let post = server.ask("POST /", &format!("Host: {}\r\nContent-Length: 0\r\n", server.address)).0;
    assert!(post.starts_with("HTTP/1.1 405"), "{post}");
    assert!(server.ask("nonsense", "").0.starts_with("HTTP/1.1 4"));
    let (head, _) = server.ask("GET /", &format!("X: {}\r\n", "x".repeat(20_000)));
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
    assert!(server.get("/", "").0.starts_with("HTTP/1.1 200"), "it still answers");
}

#[test]
fn a_page_that_is_not_built_is_said_with_what_to_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = program(folder.path()).arg("--page").arg(folder.path()).output().expect("runs");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && said.contains("not built") && said.contains("tools/web/build.sh"), "{said}");
}
