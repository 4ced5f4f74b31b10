//! Compiles WGSL in a real browser: a page served on loopback creates shader modules and pipelines and posts what failed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A shader to compile.
pub struct Source {
    /// Its name in reports.
    pub name: String,
    pub wgsl: String,
    /// The WebGPU features it needs.
    pub features: Vec<&'static str>,
    /// Whether to make a pipeline of it too, which takes a software adapter up to a second.
    pub pipeline: bool,
}

const PAGE: &str = r#"<!doctype html><title>shaders</title><script>
const post = (path, text) => fetch(path, { method: "POST", body: text });
(async () => {
  const failed = [];
  let compiled = 0;
  try {
    const shaders = await (await fetch("/shaders.json")).json();
    const adapter = await navigator.gpu.requestAdapter();
    if (!adapter) throw new Error("no WebGPU adapter");
    const wanted = [...new Set(shaders.flatMap((s) => s.features))].filter((f) => adapter.features.has(f));
    const device = await adapter.requestDevice({ requiredFeatures: wanted });
    for (const { name, wgsl, features, pipeline } of shaders) {
      if (features.some((f) => !wanted.includes(f))) continue;
      device.pushErrorScope("validation");
      const module = device.createShaderModule({ code: wgsl });
      const info = await module.getCompilationInfo();
      const errors = info.messages.filter((m) => m.type === "error");
      for (const m of errors) failed.push(`${name}:${m.lineNum}: ${m.message}`);
      if (pipeline && errors.length === 0) {
        try { await device.createComputePipelineAsync({ layout: "auto", compute: { module } }); }
        catch (e) { failed.push(`${name}: pipeline: ${e.message}`); }
      }
      const error = await device.popErrorScope();
      if (error && errors.length === 0) failed.push(`${name}: ${error.message}`);
      compiled++;
      if (compiled % 50 === 0) await post("/alive", "");
    }
  } catch (e) { failed.push(`page: ${e}`); }
  await post("/done", JSON.stringify({ compiled, failed }));
})();
</script>"#;

/// What the browser said.
pub struct Verdict {
    /// Shaders compiled: those whose features the browser has.
    pub compiled: u64,
    /// One line per failure.
    pub failed: Vec<String>,
}

/// The browser's program, if one is installed.
pub fn browser() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).flat_map(|dir| names.map(|n| dir.join(n))).find(|p| p.is_file())
}

/// Compiles all sources; gives up when the page is silent for two minutes.
pub fn compile(browser: &PathBuf, sources: &[Source]) -> Result<Verdict, String> {
    let shaders: Vec<_> = sources
        .iter()
        .map(|s| serde_json::json!({ "name": s.name, "wgsl": s.wgsl, "features": s.features, "pipeline": s.pipeline }))
        .collect();
    let shaders = serde_json::to_string(&shaders).expect("strings serialize");
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    listener.set_nonblocking(true).map_err(|e| e.to_string())?;
    let profile = tempfile::tempdir().map_err(|e| e.to_string())?;
    let url = format!("http://127.0.0.1:{}/", listener.local_addr().map_err(|e| e.to_string())?.port());
    let mut child = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"])
        .args([
            "--enable-features=Vulkan",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
        ])
        .args(["--disable-sync", "--disable-quic", "--disable-dev-shm-usage"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(&url)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("{}: {e}", browser.display()))?;
    let verdict = serve(&listener, &shaders);
    let _ = child.kill();
    let _ = child.wait();
    verdict
}

fn serve(listener: &TcpListener, shaders: &str) -> Result<Verdict, String> {
    let mut heard = Instant::now();
    while heard.elapsed() < Duration::from_secs(120) {
        let Ok((stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        heard = Instant::now();
        // Browsers open connections ahead of need and drop some in the middle: the page itself asks again.
        if let Ok(Some(result)) = answer(stream, shaders) {
            let json: serde_json::Value = serde_json::from_str(&result).map_err(|e| e.to_string())?;
            let lines = json["failed"].as_array().cloned().unwrap_or_default();
            let failed = lines.iter().map(|l| l.as_str().unwrap_or_default().to_owned()).collect();
            return Ok(Verdict { compiled: json["compiled"].as_u64().unwrap_or(0), failed });
        }
    }
    Err("the browser was silent for two minutes".into())
}

/// Answers one request; gives the body of the final one.
fn answer(stream: TcpStream, shaders: &str) -> std::io::Result<Option<String>> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = n.trim().parse().unwrap_or(0);
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let (status, kind, reply) = match head.split(' ').nth(1).unwrap_or("/") {
        "/" => ("200 OK", "text/html", PAGE),
        "/shaders.json" => ("200 OK", "application/json", shaders),
        "/alive" | "/done" => ("200 OK", "text/plain", ""),
        _ => ("404 Not Found", "text/plain", ""),
    };
    let mut stream = reader.into_inner();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        reply.len()
    )?;
    stream.write_all(reply.as_bytes())?;
    Ok(head.starts_with("POST /done").then(|| String::from_utf8_lossy(&body).into_owned()))
}
