//! The built page in a browser, served by the program. Needs Chromium (WGPU_LLM_CHROMIUM=require fails without) and a toolchain for
//! WebAssembly (the same).
// Each test file uses a part of this.
#![allow(dead_code)]

use crate::cdp::Browser;
use crate::{chromium, webpage};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};

/// One browser at a time: each is a GPU on the CPU.
static TURN: Mutex<()> = Mutex::new(());

/// What all tests of the page need: a browser's program, the page; and nobody else at it.
pub struct Bench {
    pub program: PathBuf,
    pub page: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

/// All of it; nothing if something is missing that need not be there, which is said.
pub fn bench(test: &str) -> Option<Bench> {
    let turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    let skip = |why: &str| {
        let why = format!("{test}: SKIPPED, {why}");
        assert!(std::env::var_os("WGPU_LLM_CHROMIUM").is_none_or(|v| v != "require"), "{why}");
        eprintln!("{why}");
    };
    let Some(program) = chromium::browser() else {
        skip("no chromium on the path");
        return None;
    };
    match webpage::built() {
        Ok(page) => Some(Bench { program, page: page.to_owned(), _turn: turn }),
        Err(why) => {
            skip(&why);
            None
        }
    }
}

/// `wgpu-llm web`, serving a model.
pub struct Server {
    child: Child,
    pub url: String,
    /// Requests so far, one per line.
    pub log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn start(page: &Path, model: &Path) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wgpu-llm"));
        command.args(["web", "--port", "0", "--no-cache", "--log-requests"]).arg("--page").arg(page);
        command.arg("-m").arg(model).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut url = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut url).expect("an address");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, said) = (BufReader::new(child.stderr.take().expect("piped")).lines(), log.clone());
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| said.lock().unwrap().push(line)));
        Server { child, url: url.trim().to_owned(), log }
    }

    /// How often files of models were asked for.
    pub fn model_requests(&self) -> usize {
        self.log.lock().unwrap().iter().filter(|line| line.contains("/models/")).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Goes to the page, and waits until it shows the model of the [`Server`].
pub fn open(browser: &mut Browser, url: &str) {
    browser.open(url);
    browser.until("globalThis.page && document.querySelectorAll('#local button').length === 1");
}

/// Loads `source` (an expression) through the API, and gives what was loaded.
pub fn load(browser: &mut Browser, source: &str, options: &Value) -> Value {
    browser.value(&format!("page.llm.load({source}, {options})"))
}

/// Tries to load `source` (an expression); gives the kind of the error and what it says, or `loaded`.
pub fn refused(browser: &mut Browser, source: &str, options: &Value) -> String {
    let said = browser.value(&format!(
        "page.llm.load({source}, {options}).then(() => 'loaded', (e) => `${{e.kind}}: ${{e.message}}`)"
    ));
    said.as_str().expect("text").to_owned()
}

/// An answer through the API.
pub fn chat(browser: &mut Browser, messages: &Value, options: &Value) -> Value {
    browser.value(&format!(
        "(async () => {{ const said = page.llm.chat({messages}, {options}); let piece, recovered = 0;
            while (!(piece = await said.next()).done) recovered += piece.value.recovered ? 1 : 0;
            return {{ ...piece.value, recovered }}; }})()"
    ))
}

/// The tokens of an answer.
pub fn tokens(answer: &Value) -> Vec<u32> {
    answer["tokens"].as_array().expect("tokens").iter().map(|t| t.as_u64().expect("an id") as u32).collect()
}

/// A question with the settings of the page, asked there as a person does; gives the answer.
pub fn ask(browser: &mut Browser, text: &str) -> Value {
    let before = browser.value("page.answers.length").as_u64().expect("a number");
    browser.value(&format!(
        "{{ document.getElementById('prompt').value = {}; document.getElementById('composer').requestSubmit(); }}",
        json!(text)
    ));
    browser.until(&format!("page.answers.length > {before} && document.getElementById('stop').hidden"));
    browser.value(&format!("page.answers[{before}]"))
}
