//! `web`: the page that runs models in a browser tab, and the models on this computer for it, on 127.0.0.1.

mod http;

use super::hub::api::encode;
use super::hub::name::ModelName;
use super::{pull, term};
use crate::base::{Error, ErrorKind, Result};
use crate::gguf::{self, Gguf};
use clap::Args;
use http::Request;
use serde_json::json;
use std::collections::HashMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Arguments of `web`.
#[derive(Debug, Args)]
pub struct WebArgs {
    /// Models to offer beside those in the cache: GGUF files, hf:user/repo:QUANT or aliases. Of a split model the first file.
    #[arg(short, long, value_name = "MODEL", env = "WGPU_LLM_MODEL")]
    model: Vec<OsString>,
    /// The port; 0 for any that is free.
    #[arg(long, value_name = "N", default_value_t = 8088, env = "WGPU_LLM_PORT")]
    port: u16,
    /// The folder with the page. Default: target/web of the sources that the program was built from, or `web` beside the program.
    #[arg(long, value_name = "DIR", env = "WGPU_LLM_PAGE")]
    page: Option<PathBuf>,
    /// Tell on stderr what is asked for.
    #[arg(long, env = "WGPU_LLM_LOG_REQUESTS")]
    log_requests: bool,
    /// Do not offer the models in the cache.
    #[arg(long, env = "WGPU_LLM_NO_CACHE")]
    no_cache: bool,
}

/// What every page has: without it the folder is no built page.
const NEEDED: [&str; 3] = ["index.html", "wgpu_llm.js", "wgpu_llm_bg.wasm"];

/// Serves until it is interrupted.
pub fn run(args: &WebArgs) -> Result<()> {
    let site = Arc::new(Site::new(args)?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).map_err(|e| {
        Error::io(format!("port {} cannot be opened", args.port), e).help("choose another with --port, or 0 for any")
    })?;
    let port = listener.local_addr().map_err(|e| Error::io("no address", e))?.port();
    term::print(format_args!("http://127.0.0.1:{port}/\n"))?;
    term::note("open it in a browser; Ctrl-C ends it");
    // Ctrl-C is heard between connections: so nobody may be waited for without an end.
    listener.set_nonblocking(true).map_err(|e| Error::io("the port fails", e))?;
    while !term::interrupted() {
        match listener.accept() {
            Ok((stream, _)) => {
                let site = site.clone();
                std::thread::spawn(move || http::serve(stream, port, &*site));
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            Err(e) => term::warn(Error::io("a connection failed", e)),
        }
    }
    Ok(())
}

/// The files that can be asked for, by path. Nothing else on the disk is ever looked at.
struct Site {
    files: HashMap<String, PathBuf>,
    models: String,
    log: bool,
}

impl Site {
    fn new(args: &WebArgs) -> Result<Site> {
        let page = page(args.page.as_deref())?;
        let mut files = HashMap::new();
        let entries = std::fs::read_dir(&page).map_err(|e| Error::io("cannot be read", e).at(page.display()))?;
        for path in entries.flatten().map(|e| e.path()).filter(|p| p.is_file()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.insert(format!("/{name}"), path);
        }
        files.insert("/".into(), page.join("index.html"));
        let mut rows = Vec::new();
        for (name, paths) in models(args)? {
            let base = format!("/models/{}", rows.len());
            let file = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let bytes: u64 = paths.iter().filter_map(|p| p.metadata().ok()).map(|m| m.len()).sum();
            rows.push(json!({"name": name, "url": format!("{base}/{}", encode(&file(&paths[0]))), "bytes": bytes}));
            files.extend(paths.into_iter().map(|path| (format!("{base}/{}", encode(&file(&path))), path)));
        }
        Ok(Site { files, models: serde_json::Value::from(rows).to_string(), log: args.log_requests })
    }
}

impl http::Site for Site {
    fn find(&self, request: &Request) -> Option<http::Found<'_>> {
        if self.log {
            let range = request.range.as_deref().unwrap_or("all");
            term::note(format_args!("{} {} {range}", request.method, request.path));
        }
        if request.path == "/models.json" {
            return Some(http::Found::Text(&self.models, "application/json"));
        }
        self.files.get(&request.path).map(|path| http::Found::File(path))
    }
}

/// The folder of the built page.
fn page(given: Option<&Path>) -> Result<PathBuf> {
    let whole = |dir: &Path| NEEDED.iter().all(|name| dir.join(name).is_file());
    let program = std::env::current_exe().unwrap_or_default();
    let beside = program.parent().unwrap_or(Path::new(".")).join("web");
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/web");
    let places = given.map_or(vec![beside, built], |dir| vec![dir.to_owned()]);
    places.iter().find(|dir| whole(dir)).cloned().ok_or_else(|| {
        let tried: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
        Error::new(ErrorKind::Usage, format!("the page is not built: there is none in {}", tried.join(" nor in ")))
            .help("run tools/web/build.sh in the sources of wgpu-llm, or name a folder with --page")
    })
}

/// Names and files of the models to offer.
fn models(args: &WebArgs) -> Result<Vec<(String, Vec<PathBuf>)>> {
    let hub = pull::hub(true)?;
    let mut all = Vec::new();
    for name in &args.model {
        let path = hub.resolve(&ModelName::parse(name)?)?;
        // Opened, so that a file that is no model is told now rather than in the browser; and for its parts.
        let files = Gguf::open(&path).and_then(|model| gguf::paths(&path, &model)).map_err(|e| e.at(path.display()))?;
        let title = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        all.push((title, files));
    }
    if !args.no_cache {
        all.extend(hub.cache().list().into_iter().filter(|m| !m.paths.is_empty()).map(|m| (m.name(), m.paths)));
    }
    Ok(all)
}
