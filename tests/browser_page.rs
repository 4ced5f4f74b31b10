//! The page in a real browser: a real model, loaded, kept and talked to in headless Chromium on a software GPU, compared with the
//! library; and what happens when things go wrong there. Needs Chromium (WGPU_LLM_CHROMIUM=require fails without), a toolchain
//! for WebAssembly (the same) and the test data.
#![cfg(feature = "cli")]

#[path = "common/cdp.rs"]
mod cdp;
#[allow(dead_code, reason = "the other half compiles shaders")]
#[path = "common/chromium.rs"]
mod chromium;
#[path = "common/data.rs"]
mod data;

use cdp::Browser;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use wgpu_llm::model::Model;
use wgpu_llm::run::{Options, Session};
use wgpu_llm::text::{DetokenizeOptions, Message, RenderOptions};

const MODEL: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
/// The best two may change places between kernels where they lie closer than this.
const CLOSE: f32 = 0.3;
/// The browser's memory for programs, of which models must take little.
const HEAP: u64 = 256 << 20;

/// One browser at a time: each is a GPU on the CPU.
static TURN: Mutex<()> = Mutex::new(());

/// The folder with the built page; an error where it cannot be built here.
static PAGE: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = |argument: &[&str]| Command::new("bash").arg(root.join("tools/web/build.sh")).args(argument).output();
    if !script(&["--check"]).is_ok_and(|out| out.status.success()) {
        return Err("no toolchain for WebAssembly; tools/web/build.sh says what to install".into());
    }
    let built = script(&[]).map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&built.stderr).into_owned();
    assert!(built.status.success(), "tools/web/build.sh fails:\n{said}");
    println!("{}", said.lines().last().unwrap_or_default());
    Ok(root.join("target/web"))
});

/// What all tests here need: a browser's program, the page, the model; and nobody else at it.
struct Bench {
    program: PathBuf,
    page: PathBuf,
    model: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

fn bench(test: &str) -> Option<Bench> {
    let turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    let model = data::find(MODEL, test)?;
    let skip = |why: &str| {
        let why = format!("{test}: SKIPPED, {why}");
        assert!(std::env::var_os("WGPU_LLM_CHROMIUM").is_none_or(|v| v != "require"), "{why}");
        eprintln!("{why}");
    };
    let Some(program) = chromium::browser() else {
        skip("no chromium on the path");
        return None;
    };
    match &*PAGE {
        Ok(page) => Some(Bench { program, page: page.clone(), model, _turn: turn }),
        Err(why) => {
            skip(why);
            None
        }
    }
}

/// `wgpu-llm web`, serving a model.
struct Server {
    child: Child,
    url: String,
    /// Requests so far, one per line.
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(page: &Path, model: &Path) -> Server {
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
    fn model_requests(&self) -> usize {
        self.log.lock().unwrap().iter().filter(|line| line.contains("/models/")).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Loads `source` (an expression) through the API, and gives what was loaded.
fn load(browser: &mut Browser, source: &str, options: &Value) -> Value {
    browser.value(&format!("page.llm.load({source}, {options})"))
}

/// An answer through the API.
fn chat(browser: &mut Browser, messages: &Value, options: &Value) -> Value {
    browser.value(&format!(
        "(async () => {{ const said = page.llm.chat({messages}, {options}); let piece, recovered = 0;
            while (!(piece = await said.next()).done) recovered += piece.value.recovered ? 1 : 0;
            return {{ ...piece.value, recovered }}; }})()"
    ))
}

/// An answer without an end, until somebody has heard three tokens.
fn stopped_after_three(browser: &mut Browser) -> Value {
    browser.value(
        "(async () => { const said = page.llm.chat([{ role: 'user', content: 'Count to a thousand.' }], { temperature: 0 });
            let piece, heard = 0;
            while (!(piece = await said.next()).done) if (++heard === 3) page.llm.abort();
            return piece.value; })()",
    )
}

fn tokens(answer: &Value) -> Vec<u32> {
    answer["tokens"].as_array().expect("tokens").iter().map(|t| t.as_u64().expect("an id") as u32).collect()
}

/// A question with the settings of the tests, asked on the page as a person does; gives the answer.
fn ask(browser: &mut Browser, text: &str) -> Value {
    let before = browser.value("page.answers.length").as_u64().expect("a number");
    browser.value(&format!(
        "{{ document.getElementById('prompt').value = {}; document.getElementById('composer').requestSubmit(); }}",
        json!(text)
    ));
    browser.until(&format!("page.answers.length > {before} && document.getElementById('stop').hidden"));
    browser.value(&format!("page.answers[{before}]"))
}

/// Checks that each token of `got`, after those before it, is what the library answers to `messages`, or nearly as good. Gives how many
/// were compared.
fn compare(session: &mut Session, messages: &[Message], got: &[u32]) -> usize {
    let model = session.model().clone();
    let prompt = model.chat_template().unwrap().render(messages, &RenderOptions::default()).unwrap();
    let mut text = model.tokenizer().unwrap().encode(&prompt.segments(), false).unwrap();
    let (first, length) = (text.len() - 1, got.len());
    text.extend(got);
    session.truncate(0);
    let logits = session.logits(&text[..text.len() - 1], &Vec::from_iter(first..first + length)).unwrap();
    for (i, (row, token)) in logits.iter().zip(got).enumerate() {
        let behind = row.iter().copied().fold(f32::MIN, f32::max) - row[*token as usize];
        assert!(
            behind < CLOSE,
            "token {i} of the browser is {behind} behind the library's: they part where they must not"
        );
    }
    length
}

/// `hf:` names mean the files that the program would take.
fn check_names(browser: &mut Browser) {
    let picked = browser.value(
        "(async () => { const { pick } = await import('./hub.js'); const { splitNames } = await import('./sources.js');
            const all = ['README.md', 'mmproj-F16.gguf', 'a-Q8_0.gguf', 'a-Q4_K_M.gguf', 'b/big-Q6_K-00001-of-00002.gguf',
                'b/big-Q6_K-00002-of-00002.gguf'];
            return [pick(all), pick(all, 'q8_0'), pick(all, 'Q2_K') ?? null, splitNames(pick(all, 'q6_k'))]; })()",
    );
    let parts = ["b/big-Q6_K-00001-of-00002.gguf", "b/big-Q6_K-00002-of-00002.gguf"];
    assert_eq!(picked, json!(["a-Q4_K_M.gguf", "a-Q8_0.gguf", null, parts]));
}

/// Every control has a name that can be read out, and nothing is wider than the screen.
fn check_page(browser: &mut Browser, width: u64) {
    let nameless = browser.value(
        "[...document.querySelectorAll('button, input, select, textarea')].filter((e) =>
            !(e.labels?.length || e.textContent.trim() || e.getAttribute('aria-label'))).map((e) => e.outerHTML)",
    );
    assert_eq!(nameless, json!([]), "controls without a name");
    let wide = browser.value("document.documentElement.scrollWidth").as_u64().expect("pixels");
    assert!(wide <= width, "{wide} pixels on a screen of {width}");
}

#[test]
fn the_page_chats_as_the_library_does_and_keeps_the_model() {
    let Some(bench) = bench("the_page_chats_as_the_library_does_and_keeps_the_model") else { return };
    let server = Server::start(&bench.page, &bench.model);
    let mut browser = Browser::start(&bench.program, true);
    browser.screen(1100, 800, "light");
    browser.open(&format!("{}?device=gpu", server.url));
    browser.until("document.querySelectorAll('#local button').length === 1");
    check_page(&mut browser, 1100);
    browser.screenshot("load-light");
    browser.value(
        "{ const set = (id, value) => { const e = document.getElementById(id); e.value = value; e.dispatchEvent(new Event('change')); };
           set('temperature', 0); set('limit', 8); set('context', 512); set('system', 'You are a helpful assistant.'); }",
    );
    browser.value("document.querySelector('#local button').click()");
    browser.until("document.body.dataset.state === 'ready'");

    // From here on nothing may be asked of anybody.
    let (asked, logged) = (browser.requests.len(), server.model_requests());
    assert!(logged > 0, "the model came from the server");
    let first = ask(&mut browser, "What is the capital of France?");
    browser.value("document.getElementById('show-settings').click()");
    browser.value("document.getElementById('profile').open = true");
    let second = ask(&mut browser, "And of Italy?");
    let quiet = browser.requests[asked..].to_vec();
    assert!(quiet.iter().all(|url| url.starts_with("blob:") || url.starts_with("data:")), "requests: {quiet:?}");
    assert!(browser.value("document.querySelectorAll('#kernels tr').length").as_u64().unwrap() > 5, "no kernel table");
    check_page(&mut browser, 1100);
    browser.screenshot("chat-light");
    browser.screen(1100, 800, "dark");
    browser.screenshot("chat-dark");
    browser.value("document.getElementById('show-settings').click()");
    browser.screen(360, 740, "light");
    check_page(&mut browser, 360);
    browser.screenshot("chat-phone");

    // The same model, natively, on the CPU.
    let model = Arc::new(Model::open(&bench.model).unwrap());
    let mut session = Session::new(model.clone(), None, Options { context: 1024, ..Options::default() }).unwrap();
    let text = |answer: &Value| answer["text"].as_str().expect("text").to_owned();
    let mut messages =
        vec![Message::system("You are a helpful assistant."), Message::user("What is the capital of France?")];
    let mut compared = compare(&mut session, &messages, &tokens(&first));
    messages.extend([Message::assistant(text(&first)), Message::user("And of Italy?")]);
    compared += compare(&mut session, &messages, &tokens(&second));
    println!("{compared} of {} tokens compared, all equal", tokens(&first).len() + tokens(&second).len());
    assert!(compared >= 8, "{compared} tokens are no comparison");
    let decoded =
        model.tokenizer().unwrap().decode(&tokens(&first), DetokenizeOptions { show_special: false, continued: true });
    assert_eq!(text(&first), decoded);
    assert!(text(&first).contains("Paris"), "{first}");

    // The next visit: from the browser's own storage.
    browser.open(&format!("{}?device=gpu&again", server.url));
    browser.until("document.querySelectorAll('#kept button').length === 2");
    let logged = server.model_requests();
    browser.value("document.querySelector('#kept button').click()");
    browser.until("document.body.dataset.state === 'ready'");
    let again = ask(&mut browser, "What is the capital of France?");
    assert_eq!(server.model_requests(), logged, "it was loaded from the server again");
    assert_eq!(tokens(&again), tokens(&first), "the model that was kept is another one");
    let stats = browser.value("page.llm.stats()");
    let heap = stats["heapPeak"].as_u64().expect("bytes");
    println!("WebAssembly's memory: {} MiB", heap >> 20);
    assert!(heap < HEAP, "{heap} bytes of WebAssembly's memory");
}

#[test]
fn an_answer_is_stopped_and_a_lost_gpu_comes_back() {
    let Some(bench) = bench("an_answer_is_stopped_and_a_lost_gpu_comes_back") else { return };
    let server = Server::start(&bench.page, &bench.model);
    let mut browser = Browser::start(&bench.program, true);
    browser.open(&server.url);
    browser.until("globalThis.page && document.querySelectorAll('#local button').length === 1");
    let source = format!("'models/0/{MODEL}'");

    // Too large for what it may use: said before anything is uploaded, and with numbers.
    let refused = browser.value(&format!(
        "page.llm.load({source}, {{ keep: false, memory: 5e7 }}).then(() => 'loaded', (e) => `${{e.kind}}: ${{e.message}}`)"
    ));
    let refused = refused.as_str().unwrap_or_default();
    assert!(
        refused.starts_with("OutOfMemory") && refused.contains("needs 0.") && refused.contains("has 0.0"),
        "{refused}"
    );

    // A download that is cancelled goes on where it ended.
    let cancelled = browser.value(&format!(
        "page.llm.load({source}, {{ device: 'cpu', onprogress(p) {{ if (p.done > 1e6) page.llm.abort(); }} }})
            .then(() => 'loaded', (e) => e.kind)"
    ));
    assert_eq!(cancelled, "AbortError");
    browser.value(&format!("page.llm.load({source}, {{ device: 'gpu', memory: 5e7 }}).catch(() => 0)"));
    let ranges: Vec<String> = server.log.lock().unwrap().iter().filter(|l| l.ends_with('-')).cloned().collect();
    assert!(ranges.iter().any(|l| l.contains("/models/") && !l.ends_with("bytes=0-")), "{ranges:?}");
    assert_eq!(browser.value("page.llm.kept().then((all) => all.length)"), 1);
    check_names(&mut browser);

    // Read from the server range by range, without a copy; lesser kernels; tensors in many pieces.
    let without = json!(["subgroups", "shader-f16", "timestamp-query"]);
    let options = json!({"device": "gpu", "keep": false, "context": 512, "without": without, "maxBinding": 4 << 20});
    let model = load(&mut browser, &source, &options);
    assert_eq!((&model["gpu"], &model["subgroups"], &model["f16"]), (&json!(true), &Value::Null, &json!(false)));
    assert_eq!((&model["timestamps"], &model["kept"]), (&json!(false), &Value::Null), "{model}");
    let question = json!([{"role": "user", "content": "What is the capital of France?"}]);
    let greedy = json!({"temperature": 0, "limit": 4});
    let plain = chat(&mut browser, &question, &greedy);
    let native = Arc::new(Model::open(&bench.model).unwrap());
    let mut session = Session::new(native, None, Options { context: 512, ..Options::default() }).unwrap();
    let compared = compare(&mut session, &[Message::user("What is the capital of France?")], &tokens(&plain));
    println!("{compared} tokens compared, all equal");
    assert!(compared >= 2, "{compared} tokens are no comparison");

    // An answer without an end, until somebody has heard enough.
    let stopped = stopped_after_three(&mut browser);
    assert_eq!(stopped["stop"], "stopped", "{stopped}");
    assert!((3..20).contains(&tokens(&stopped).len()), "{stopped}");

    browser.value("page.llm.loseDevice()");
    let after = chat(&mut browser, &question, &greedy);
    assert_eq!((tokens(&after), &after["recovered"]), (tokens(&plain), &json!(1)), "it goes on, and says so");
    assert_eq!(browser.value("page.llm.stats()")["model"]["gpu"], true, "on the GPU again");
    browser.value("page.llm.unload()");
    assert!(browser.console.iter().all(|line| !line.contains("panicked")), "{:?}", browser.console);
}

#[test]
fn without_webgpu_the_cpu_answers_the_same() {
    let Some(bench) = bench("without_webgpu_the_cpu_answers_the_same") else { return };
    let server = Server::start(&bench.page, &bench.model);
    let mut browser = Browser::start(&bench.program, false);
    browser.open(&server.url);
    browser.until("globalThis.page && document.querySelectorAll('#local button').length === 1");
    let check = browser.value("page.llm.check()");
    assert_eq!((&check["failures"], &check["level"]), (&json!([]), &json!("simd128")), "{check}");
    println!("{} cases of operations are right", check["cases"]);
    assert!(check["cases"].as_u64().is_some_and(|n| n > 100), "{check}");
    let model = load(&mut browser, &format!("'models/0/{MODEL}'"), &json!({"context": 512}));
    assert_eq!((&model["gpu"], &model["device"]), (&json!(false), &json!("CPU")), "{model}");
    let ask = |browser: &mut Browser, text: &str, limit: u32| {
        chat(browser, &json!([{"role": "user", "content": text}]), &json!({"temperature": 0, "limit": limit}))
    };
    let question = "What is the capital of France?";
    let answer = ask(&mut browser, question, 8);
    let native = Arc::new(Model::open(&bench.model).unwrap());
    let mut session = Session::new(native, None, Options { context: 512, ..Options::default() }).unwrap();
    let compared = compare(&mut session, &[Message::user(question)], &tokens(&answer));
    println!("{compared} tokens compared, all equal");
    assert!(compared >= 4, "{compared} tokens are no comparison");
    let stopped = stopped_after_three(&mut browser);
    assert_eq!(stopped["stop"], "stopped", "the CPU never waits, and hears it all the same: {stopped}");
}

#[test]
fn a_model_of_a_gigabyte_needs_little_of_the_heap() {
    let Some(bench) = bench("a_model_of_a_gigabyte_needs_little_of_the_heap") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("large.gguf");
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgpu-llm"));
    let made = command.args(["synth", "llama-1b:q8_0", "-o"]).arg(&file).output().expect("runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let server = Server::start(&bench.page, &file);
    let mut browser = Browser::start(&bench.program, true);
    browser.open(&server.url);
    browser.until("globalThis.page && document.querySelectorAll('#local button').length === 1");
    let options = json!({"device": "gpu", "context": 256, "keep": false, "template": "chatml"});
    let model = load(&mut browser, "'models/0/large.gguf'", &options);
    assert!(model["weights"].as_u64().is_some_and(|n| n > 1 << 30), "{model}");
    let heap = browser.value("page.llm.stats()")["heapPeak"].as_u64().expect("bytes");
    println!("WebAssembly's memory: {} MiB", heap >> 20);
    assert!(heap < HEAP, "{heap} bytes of WebAssembly's memory");
}
