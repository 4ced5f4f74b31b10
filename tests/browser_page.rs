//! The page in a real browser: a real model, loaded, kept and talked to in headless Chromium on a software GPU, compared with the
//! library; and what happens when things go wrong there. Needs the test data.
#![cfg(feature = "cli")]

#[path = "common/cdp.rs"]
mod cdp;
#[allow(dead_code, reason = "the other half compiles shaders")]
#[path = "common/chromium.rs"]
mod chromium;
#[path = "common/data.rs"]
mod data;

#[path = "common/page.rs"]
mod page;
#[path = "common/webpage.rs"]
mod webpage;

use cdp::Browser;
use page::{Server, ask, chat, load, open, refused, tokens};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use wgpu_llm::low_level::model::Model;
use wgpu_llm::low_level::plan::Options;
use wgpu_llm::low_level::run::Session;
use wgpu_llm::low_level::text::{ChatTemplate, DetokenizeOptions, Message, RenderOptions};

const MODEL: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
/// The best two may change places between kernels where they lie closer than this.
const CLOSE: f32 = 0.3;
/// The browser's memory for programs, of which models must take little.
const HEAP: u64 = 256 << 20;

/// What the page's tests need, and a real model.
struct Bench {
    model: PathBuf,
    page: page::Bench,
}

fn bench(test: &str) -> Option<Bench> {
    Some(Bench { model: data::find(MODEL, test)?, page: page::bench(test)? })
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

/// A made-up model's file.
fn synthetic(name: &str, folder: &Path) -> PathBuf {
    let file = folder.join("synthetic.gguf");
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgpu-llm"));
    let made = command.args(["synth", name, "-o"]).arg(&file).output().expect("runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    file
}

/// [`compare_with`] by the model's own template.
fn compare(session: &mut Session, messages: &[Message], got: &[u32]) -> usize {
    let model = session.model().clone();
    compare_with(&model.chat_template().unwrap(), session, messages, got, CLOSE)
}

/// Checks that each token of `got`, after those before it, is what the library answers to `messages`, or no more than `close` behind. Gives
/// how many were compared.
fn compare_with(
    template: &ChatTemplate,
    session: &mut Session,
    messages: &[Message],
    got: &[u32],
    close: f32,
) -> usize {
    let model = session.model().clone();
    let prompt = template.render(messages, &RenderOptions::default()).unwrap();
    let mut text = model.tokenizer().unwrap().encode(&prompt.segments(), false).unwrap();
    let (first, length) = (text.len() - 1, got.len());
    text.extend(got);
    session.truncate(0);
    let logits = session.logits(&text[..text.len() - 1], &Vec::from_iter(first..first + length)).unwrap();
    for (i, (row, token)) in logits.iter().zip(got).enumerate() {
        let behind = row.iter().copied().fold(f32::MIN, f32::max) - row[*token as usize];
        assert!(
            behind < close,
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

/// The chat with its settings open, in both colours, its table of kernels, and the chat on a telephone.
fn look(browser: &mut Browser) {
    check_page(browser, 1100);
    browser.screenshot("chat-light");
    browser.screen(1100, 800, "dark");
    browser.screenshot("chat-dark");
    browser.value("document.getElementById('profile').scrollIntoView()");
    browser.screenshot("kernels-dark");
    let cut = "[scrollY, ...[...document.querySelectorAll('.scroll')].map((e) => e.scrollWidth - e.clientWidth)]";
    assert_eq!(browser.value(cut), json!([0, 0]), "the page scrolls as a whole, or columns are out of sight");
    browser.value("document.getElementById('show-settings').click()");
    browser.screen(360, 740, "light");
    check_page(browser, 360);
    browser.screenshot("chat-phone");
}

#[test]
fn the_page_chats_as_the_library_does_and_keeps_the_model() {
    let Some(bench) = bench("the_page_chats_as_the_library_does_and_keeps_the_model") else { return };
    let server = Server::start(&bench.page.page, &bench.model);
    let mut browser = Browser::start(&bench.page.program, true);
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
    // The page hears of it in its own time.
    browser.value("page.llm.profile(true)");
    let second = ask(&mut browser, "And of Italy?");
    let quiet = browser.requests[asked..].to_vec();
    assert!(quiet.iter().all(|url| url.starts_with("blob:") || url.starts_with("data:")), "requests: {quiet:?}");
    browser.until("document.querySelectorAll('#kernels tr').length > 5");
    look(&mut browser);

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
fn too_large_a_model_is_refused_and_a_download_goes_on_where_it_ended() {
    let Some(bench) = bench("too_large_a_model_is_refused_and_a_download_goes_on_where_it_ended") else { return };
    let server = Server::start(&bench.page.page, &bench.model);
    let mut browser = Browser::start(&bench.page.program, true);
    open(&mut browser, &server.url);
    let source = format!("'models/0/{MODEL}'");

    // Too large for what it may use: said before anything is uploaded, and with numbers.
    let said = refused(&mut browser, &source, &json!({"keep": false, "memory": 5e7}));
    assert!(said.starts_with("OutOfMemory") && said.contains("needs 0.") && said.contains("has 0.0"), "{said}");

    // A download that is cancelled goes on where it ended.
    let cancelled = browser.value(&format!(
        "page.llm.load({source}, {{ device: 'cpu', onprogress(p) {{ if (p.done > 1e6) page.llm.abort(); }} }})
            .then(() => 'loaded', (e) => e.kind)"
    ));
    assert_eq!(cancelled, "AbortError");
    assert_eq!(browser.value("page.llm.kept().then((all) => all.map((k) => k.complete))"), json!([false]));
    browser.value(&format!("page.llm.load({source}, {{ device: 'gpu', memory: 5e7 }}).catch(() => 0)"));
    let ranges: Vec<String> = server.log.lock().unwrap().iter().filter(|l| l.ends_with('-')).cloned().collect();
    assert!(ranges.iter().any(|l| l.contains("/models/") && !l.ends_with("bytes=0-")), "{ranges:?}");
    assert_eq!(browser.value("page.llm.kept().then((all) => all.length)"), 1);
    check_names(&mut browser);
}

/// A small model, of which the interesting thing is how it is run: with experts, and a head of its own, so that answers depend on its layers.
#[test]
fn lesser_kernels_answer_and_a_lost_gpu_comes_back() {
    let Some(bench) = page::bench("lesser_kernels_answer_and_a_lost_gpu_comes_back") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let file = synthetic("moe-tiny:q8_0", folder.path());
    let server = Server::start(&bench.page, &file);
    let mut browser = Browser::start(&bench.program, true);
    open(&mut browser, &server.url);

    // Read from the server range by range, without a copy; lesser kernels; tensors in pieces.
    let without = json!(["subgroups", "shader-f16", "timestamp-query"]);
    let options = json!({"device": "gpu", "keep": false, "context": 64, "template": "llama2", "without": without, "maxBinding": 512 << 10});
    let model = load(&mut browser, "'models/0/synthetic.gguf'", &options);
    assert_eq!((&model["gpu"], &model["subgroups"], &model["f16"]), (&json!(true), &Value::Null, &json!(false)));
    assert_eq!((&model["timestamps"], &model["kept"]), (&json!(false), &Value::Null), "{model}");
    let question = json!([{"role": "user", "content": "Hi"}]);
    let greedy = json!({"temperature": 0, "limit": 8});
    let plain = chat(&mut browser, &question, &greedy);
    let native = Arc::new(Model::open(&file).unwrap());
    let template = native.chat_template_named("llama2").unwrap();
    let mut session = Session::new(native, None, Options { context: 64, ..Options::default() }).unwrap();
    // The logits of random weights lie within 1 of each other.
    let compared = compare_with(&template, &mut session, &[Message::user("Hi")], &tokens(&plain), 0.02);
    println!("{compared} tokens compared, all equal");
    assert!(compared >= 4, "{compared} tokens are no comparison");

    // An answer without an end, until somebody has heard enough.
    let stopped = stopped_after_three(&mut browser);
    assert_eq!(stopped["stop"], "stopped", "{stopped}");
    assert!((3..20).contains(&tokens(&stopped).len()), "{stopped}");

    // By chance, so that tokens differ from each other.
    let drawn = json!({"temperature": 2, "seed": 5, "limit": 8});
    let before = tokens(&chat(&mut browser, &question, &drawn));
    assert!(before.iter().any(|token| *token != before[0]), "{before:?}");
    // Other settings between, since the same ones go on in their random numbers.
    chat(&mut browser, &question, &greedy);
    browser.value("page.llm.loseDevice()");
    let after = chat(&mut browser, &question, &drawn);
    assert_eq!((tokens(&after), &after["recovered"]), (before, &json!(1)), "it goes on, and says so");
    assert_eq!(browser.value("page.llm.stats()")["model"]["gpu"], true, "on the GPU again");
    browser.value("page.llm.unload()");
    assert!(browser.console.iter().all(|line| !line.contains("panicked")), "{:?}", browser.console);
}

#[test]
fn without_webgpu_the_cpu_answers_the_same() {
    let Some(bench) = bench("without_webgpu_the_cpu_answers_the_same") else { return };
    let server = Server::start(&bench.page.page, &bench.model);
    let mut browser = Browser::start(&bench.page.program, false);
    open(&mut browser, &server.url);
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
fn a_model_larger_than_the_heap_needs_little_of_it() {
    let Some(bench) = bench("a_model_larger_than_the_heap_needs_little_of_it") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let file = synthetic("llama-1b:q4_0", folder.path());
    let server = Server::start(&bench.page.page, &file);
    let mut browser = Browser::start(&bench.page.program, true);
    open(&mut browser, &server.url);
    let options = json!({"device": "gpu", "context": 256, "keep": false, "template": "chatml"});
    let model = load(&mut browser, "'models/0/synthetic.gguf'", &options);
    assert!(model["weights"].as_u64().is_some_and(|n| n > 2 * HEAP), "{model}");
    let heap = browser.value("page.llm.stats()")["heapPeak"].as_u64().expect("bytes");
    println!("WebAssembly's memory: {} MiB", heap >> 20);
    assert!(heap < HEAP, "{heap} bytes of WebAssembly's memory");
}
