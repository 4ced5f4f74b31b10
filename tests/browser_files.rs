//! Where models come from in a browser, and what is left when they go: chosen and dropped files, split ones, a hub; browsers without
//! storage or a GPU; loading twenty times; a tab in the background. With a model of a few kilobytes, so that all of it is quick.
#![cfg(feature = "cli")]

#[path = "common/cdp.rs"]
mod cdp;
#[allow(dead_code, reason = "the other half compiles shaders")]
#[path = "common/chromium.rs"]
mod chromium;
#[path = "common/fixture.rs"]
mod fixture;
mod hubserver;
#[path = "common/page.rs"]
mod page;
#[path = "common/webpage.rs"]
mod webpage;

use cdp::Browser;
use hubserver::Repo;
use page::{Bench, Server, ask, bench, chat, load, open, refused, tokens};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use wgpu_llm::low_level::arch::Spec;
use wgpu_llm::low_level::gguf::{Gguf, Parts, ReadAt, Source, Writer};

/// Tokens of the tiny model's context.
const CONTEXT: u64 = 256;
/// Tokens of a long answer.
const LONG: usize = 100;
/// What would wait for a timer, or a frame, that hidden tabs get once a second would take longer by far.
const HIDDEN: Duration = Duration::from_secs(60);

/// Counts, in the worker, what of the GPU is not destroyed.
const COUNT: &str = "{
    self.live = new Set();
    const wrap = (proto, name, then) => {
        const as_is = proto[name];
        proto[name] = function (...args) { const out = as_is.apply(this, args); then(this, out); return out; };
    };
    let wrapped = false;
    wrap(navigator.gpu, 'requestAdapter', () => {
        if (wrapped) return;
        wrapped = true;
        wrap(GPUDevice.prototype, 'createBuffer', (device, buffer) => { buffer.of = device; live.add(buffer); });
        wrap(GPUBuffer.prototype, 'destroy', (buffer) => live.delete(buffer));
        wrap(GPUDevice.prototype, 'destroy', (device) => live.forEach((b) => b.of === device && live.delete(b)));
    });
}";

/// The tiny model, whole and in parts, in a folder.
struct Tiny {
    folder: tempfile::TempDir,
    whole: PathBuf,
    parts: Vec<PathBuf>,
}

impl Tiny {
    fn new() -> Tiny {
        let folder = tempfile::tempdir().expect("a folder");
        let whole = folder.path().join("tiny-F32.gguf");
        std::fs::write(&whole, tiny(CONTEXT)).expect("written");
        let model = Gguf::open(&whole).expect("a model");
        let mut writer = Writer::new(model.metadata().clone()).unwrap();
        for tensor in model.tensors() {
            writer.tensor(&tensor.name, tensor.dtype, tensor.shape).unwrap();
        }
        let put = |i: usize, out: &mut wgpu_llm::low_level::gguf::Sink<'_>| out.put(model.data(&model.tensors()[i])?);
        let most = model.tensors().len().div_ceil(3);
        let parts = writer.write_parts(folder.path().join("cut-F32"), Parts::Tensors(most), put).unwrap();
        assert_eq!(parts.len(), 3);
        Tiny { folder, whole, parts }
    }
}

/// The file of the tiny model with a context of so many tokens.
fn tiny(context: u64) -> Vec<u8> {
    let mut json = fixture::talker();
    fixture::set(&mut json, "llama.context_length", json!(["UINT32"]), context.into());
    fixture::bytes(&json).expect("well formed")
}

/// A browser at the page, with a script for its workers.
fn browser_with(bench: &Bench, gpu: bool, in_workers: &str, url: &str) -> Browser {
    let mut browser = Browser::start(&bench.program, gpu);
    browser.in_workers = in_workers.to_owned();
    open(&mut browser, url);
    browser
}

/// What the model that is loaded answers, always the same.
fn answer(browser: &mut Browser) -> Vec<u32> {
    let said = chat(browser, &json!([{"role": "user", "content": "abc"}]), &json!({"temperature": 0, "limit": 8}));
    assert!(!tokens(&said).is_empty(), "{said}");
    tokens(&said)
}

/// The ids of the models that the browser keeps.
fn kept(browser: &mut Browser) -> Vec<String> {
    let all = browser.value("page.llm.kept()");
    all.as_array().expect("a list").iter().map(|k| k["id"].as_str().expect("an id").to_owned()).collect()
}

/// A file that can only be read piece by piece.
struct Pieces(Vec<u8>);

impl ReadAt for Pieces {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> wgpu_llm::low_level::base::Result<()> {
        into.copy_from_slice(&self.0[offset as usize..][..into.len()]);
        Ok(())
    }
}

/// Factors of rotary angles used to be looked for in memory, where a browser has nothing: Llama 3 could not be loaded there.
#[test]
fn every_architecture_is_understood_without_its_file_in_memory() {
    for name in fixture::names() {
        let bytes = fixture::bytes(&fixture::json(&name)).expect("well formed");
        let model = Gguf::from_sources(vec![Source::streamed_from(Box::new(Pieces(bytes)))]).expect("a model");
        Spec::read(&model).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn chosen_and_dropped_files_are_kept_and_parts_put_together() {
    let Some(bench) = bench("chosen_and_dropped_files_are_kept_and_parts_put_together") else { return };
    let tiny = Tiny::new();
    let server = Server::start(&bench.page, &tiny.parts[0]);
    let mut browser = browser_with(&bench, false, "", &format!("{}?device=cpu", server.url));

    // Split, from the server: the address of the first part is enough.
    let model = load(&mut browser, "'models/0/cut-F32-00001-of-00003.gguf'", &json!({"device": "cpu", "keep": false}));
    assert_eq!((&model["context"], &model["kept"]), (&json!(CONTEXT), &Value::Null), "{model}");
    let expected = answer(&mut browser);
    let asked = server.model_requests();
    assert!(asked < 100, "a round trip for every few rows: {asked}");

    // All parts chosen together, in any order.
    let backwards: Vec<&Path> = tiny.parts.iter().rev().map(PathBuf::as_path).collect();
    browser
        .value("page.keeping = new Promise((kept) => page.llm.addEventListener('kept', (e) => kept(e.detail.id))); 0");
    browser.choose("#file", &backwards);
    browser.until("document.body.dataset.state === 'ready'");
    assert_eq!(answer(&mut browser), expected);
    assert_eq!(browser.value("page.keeping"), "cut-F32-00001-of-00003.gguf");

    // Dropped, one file.
    browser.value("document.getElementById('change').click()");
    browser.until("document.body.dataset.state === undefined");
    let bytes = std::fs::read(&tiny.whole).expect("read");
    browser.value(&drop_of("tiny-F32.gguf", &bytes));
    browser.until("document.body.dataset.state === 'ready'");
    assert_eq!(answer(&mut browser), expected);
    browser.until("page.llm.kept().then((all) => all.length === 2)");

    // Another file of that name takes its place.
    browser.value("document.getElementById('change').click()");
    browser
        .value("page.keeping = new Promise((kept) => page.llm.addEventListener('kept', (e) => kept(e.detail.id))); 0");
    browser.value(&drop_of("tiny-F32.gguf", &self::tiny(CONTEXT / 2)));
    browser.until("document.body.dataset.state === 'ready'");
    assert_eq!(browser.value("page.keeping"), "tiny-F32.gguf");

    // The next visit: from the browser's own storage, and from nowhere else.
    open(&mut browser, &format!("{}?device=cpu&again", server.url));
    browser.until("document.querySelectorAll('#kept li').length === 2");
    let again = load(&mut browser, "{ kept: 'cut-F32-00001-of-00003.gguf' }", &json!({"device": "cpu"}));
    assert_eq!((&again["bytes"], &again["context"]), (&model["bytes"], &json!(CONTEXT)));
    assert_eq!(answer(&mut browser), expected, "the model that was kept is another one");
    let other = load(&mut browser, "{ kept: 'tiny-F32.gguf' }", &json!({"device": "cpu"}));
    assert_eq!(other["context"], CONTEXT / 2, "the file of the same name that came later");
    assert_eq!(server.model_requests(), asked, "files from the disk need no server");
    drop(tiny.folder);
}

/// A script that drops a file on the page.
fn drop_of(name: &str, bytes: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    format!(
        "{{ const bytes = Uint8Array.from(atob('{text}'), (c) => c.charCodeAt(0)), dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], '{name}'));
            document.dispatchEvent(new DragEvent('drop', {{ dataTransfer, bubbles: true, cancelable: true }})); }}"
    )
}

#[test]
fn a_hub_gives_models_by_name_and_they_are_not_mixed_up() {
    let Some(bench) = bench("a_hub_gives_models_by_name_and_they_are_not_mixed_up") else { return };
    let tiny = Tiny::new();
    let read = |path: &PathBuf| std::fs::read(path).expect("read");
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let parts: Vec<(String, Vec<u8>)> = tiny.parts.iter().map(|p| (name(p), read(p))).collect();
    let files: Vec<(&str, &[u8])> = parts.iter().map(|(name, bytes)| (&name[..], &bytes[..])).collect();
    let (whole, other) = (read(&tiny.whole), self::tiny(CONTEXT / 2));
    let repos = [
        Repo::new("me/tiny", &[("README.md", b"hello"), ("tiny-F32.gguf", &whole)]),
        Repo::new("me/cut", &files),
        Repo::new("you/tiny", &[("tiny-F32.gguf", &other)]),
    ];
    let hub = hubserver::Server::start(move |request| {
        let repo = repos.iter().find(|r| request.path.contains(&r.name)).unwrap_or(&repos[0]);
        repo.answer(request).header("Access-Control-Allow-Origin", "*")
    });
    let server = Server::start(&bench.page, &tiny.whole);
    let mut browser = browser_with(&bench, false, "", &format!("{}?device=cpu&endpoint={}", server.url, hub.url));

    // As a person does it.
    browser
        .value("{ const a = document.getElementById('address'); a.value = 'hf:me/tiny:f32'; a.form.requestSubmit(); }");
    browser.until("document.body.dataset.state === 'ready'");
    let expected = answer(&mut browser);
    assert_eq!((hub.downloads().len(), kept(&mut browser)), (1, vec!["tiny-F32.gguf".to_owned()]));

    // What is kept is not asked for again, and a file of that name in another repository is another one.
    let options = json!({"device": "cpu", "endpoint": hub.url});
    let again = load(&mut browser, "'hf:me/tiny'", &options);
    assert_eq!((hub.downloads().len(), &again["kept"]), (1, &json!("tiny-F32.gguf")));
    // An address copied from the hub's pages is a name, too.
    for page in ["me/tiny", "me/tiny:F32", "me/tiny/tree/main", "me/tiny/blob/main/tiny-F32.gguf"] {
        let again = load(&mut browser, &format!("'{}/{page}'", hub.url), &options);
        assert_eq!((hub.downloads().len(), &again["kept"]), (1, &json!("tiny-F32.gguf")), "{page}");
    }
    let other = load(&mut browser, "'hf:you/tiny:F32'", &options);
    assert_eq!((hub.downloads().len(), &other["context"]), (2, &json!(CONTEXT / 2)));

    // In parts; and without keeping them, from a server without ranges.
    load(&mut browser, "'hf:me/cut'", &options);
    assert_eq!((hub.downloads().len(), answer(&mut browser)), (5, expected.clone()));
    let whole = load(&mut browser, "'hf:me/tiny'", &json!({"device": "cpu", "endpoint": hub.url, "keep": false}));
    assert_eq!((&whole["kept"], answer(&mut browser)), (&Value::Null, expected));

    let said = refused(&mut browser, "'hf:me/tiny:Q2_K'", &options);
    assert!(said.starts_with("Usage") && said.contains("it has F32"), "{said}");
    let said = refused(&mut browser, "'hf:nobody/nothing'", &options);
    assert!(said.starts_with("Usage") && said.contains("404"), "{said}");
}

#[test]
fn a_download_goes_on_after_its_tab_was_closed() {
    let Some(bench) = bench("a_download_goes_on_after_its_tab_was_closed") else { return };
    let tiny = Tiny::new();
    let bytes = std::fs::read(&tiny.whole).expect("read");
    let repo = Repo::new("me/tiny", &[("slow-F32.gguf", &bytes)]);
    let hub = hubserver::Server::start(move |request| {
        let reply = repo.answer(request).header("Access-Control-Allow-Origin", "*");
        // What goes on where it ended comes at once.
        let slow = if request.from().is_none() { Duration::from_millis(4) } else { Duration::ZERO };
        hubserver::Reply { slow, ..reply }
    });
    let server = Server::start(&bench.page, &tiny.whole);
    let url = format!("{}?device=cpu", server.url);
    let mut browser = browser_with(&bench, false, "", &url);
    browser.value(&format!(
        "{{ page.llm.load('hf:me/tiny', {{ endpoint: '{}', onprogress(p) {{ page.done = p.done; }} }}); 0 }}",
        hub.url
    ));
    browser.until("page.done > 2e5");
    browser.close_tab();
    open(&mut browser, &url);
    browser.until("document.querySelectorAll('#kept li').length === 1");
    let label = browser.value("document.querySelector('#kept button').textContent");
    assert!(label.as_str().is_some_and(|text| text.contains("not all of it")), "{label}");
    browser.value("document.querySelector('#kept button').click()");
    browser.until("document.body.dataset.state === 'ready'");
    answer(&mut browser);
    let from = hub.downloads().last().and_then(hubserver::Request::from);
    assert!(from.is_some_and(|from| from > 100_000), "it began anew: {from:?}");
}

#[test]
fn browsers_without_storage_or_a_gpu_load_models_all_the_same() {
    let Some(bench) = bench("browsers_without_storage_or_a_gpu_load_models_all_the_same") else { return };
    let tiny = Tiny::new();
    let server = Server::start(&bench.page, &tiny.whole);
    // Private windows of Firefox refuse their storage; where a GPU is blocked, WebGPU is there and has no adapter.
    let lacking = "navigator.storage.getDirectory = () => Promise.reject(new DOMException('no', 'SecurityError'));
        navigator.gpu.requestAdapter = async () => null;";
    let mut browser = browser_with(&bench, true, lacking, &server.url);
    assert_eq!(kept(&mut browser), Vec::<String>::new());
    browser.value("document.querySelector('#local button').click()");
    browser.until("document.body.dataset.state === 'ready'");
    let notice = browser.value("document.getElementById('notice').innerText");
    assert!(notice.as_str().is_some_and(|text| text.contains("CPU")), "nobody says why: {notice}");
    let model = browser.value("page.llm.stats()")["model"].clone();
    assert_eq!((&model["kept"], &model["gpu"]), (&Value::Null, &json!(false)), "{model}");
    answer(&mut browser);
    let file =
        "fetch('models/0/tiny-F32.gguf').then((r) => r.blob()).then((b) => page.llm.load(new File([b], 'a.gguf')))";
    assert_eq!(browser.value(file)["context"], CONTEXT);
    answer(&mut browser);
    let said = refused(&mut browser, "'models/0/tiny-F32.gguf'", &json!({"device": "gpu"}));
    assert!(said.starts_with("NoDevice") && said.contains("WebGPU"), "{said}");
    assert_eq!(kept(&mut browser), Vec::<String>::new());
}

#[test]
fn twenty_loads_take_no_more_memory_than_one() {
    let Some(bench) = bench("twenty_loads_take_no_more_memory_than_one") else { return };
    let tiny = Tiny::new();
    let server = Server::start(&bench.page, &tiny.whole);
    let mut browser = browser_with(&bench, true, COUNT, &server.url);
    load(&mut browser, "'models/0/tiny-F32.gguf'", &json!({"device": "cpu"}));
    for device in ["gpu", "cpu"] {
        let (begin, mut heaps) = (Instant::now(), Vec::new());
        for i in 0..20 {
            let model = load(&mut browser, "{ kept: 'tiny-F32.gguf' }", &json!({"device": device}));
            assert_eq!(model["gpu"], device == "gpu", "{model}");
            assert_eq!(browser.in_worker("live.size").as_u64().is_some_and(|n| n > 5), device == "gpu", "miscounted");
            // A GPU on the CPU takes its time to compile what answers need.
            if device == "cpu" || [0, 1, 19].contains(&i) {
                answer(&mut browser);
            }
            browser.value("page.llm.unload()");
            assert_eq!(browser.in_worker("live.size"), 0, "buffers that nobody destroyed");
            heaps.push(browser.value("page.llm.stats()")["heap"].as_u64().expect("bytes"));
        }
        let (first, last) = (heaps[1], heaps[19]);
        println!("{device}: {first} bytes of heap after two loads, {last} after twenty, in {:?}", begin.elapsed());
        // One step may be for holes. A file that stayed would be five of them.
        assert!(last - first <= 1 << 20, "it grows: {heaps:?}");
    }
}

/// A question that the model that is loaded answers at length.
fn endless(browser: &mut Browser) -> String {
    let asked = |text: &str| json!([{"role": "user", "content": text}]);
    let mut texts = ('a'..='z').map(String::from);
    let long = |text: &String| {
        let said = chat(browser, &asked(text), &json!({"temperature": 0, "limit": LONG}));
        tokens(&said).len() == LONG
    };
    texts.find(long).expect("one of so many")
}

#[test]
fn an_answer_goes_on_in_a_hidden_tab() {
    let Some(bench) = bench("an_answer_goes_on_in_a_hidden_tab") else { return };
    let tiny = Tiny::new();
    let server = Server::start(&bench.page, &tiny.whole);
    let mut browser = browser_with(&bench, true, "", &server.url);
    browser.value(&format!(
        "{{ const set = (id, value) => {{ document.getElementById(id).value = value; }};
            set('temperature', 0); set('limit', {LONG}); }}"
    ));
    for device in ["cpu", "gpu"] {
        browser.value(&format!("document.getElementById('device').value = '{device}'"));
        browser.value("document.querySelector('#local button').click()");
        browser.until("document.body.dataset.state === 'ready'");
        let question = endless(&mut browser);
        browser.hide(true);
        let begin = Instant::now();
        let hidden = ask(&mut browser, &question);
        println!("{device}: {} tokens in {:?}, hidden", tokens(&hidden).len(), begin.elapsed());
        assert_eq!(tokens(&hidden).len(), LONG, "{hidden}");
        assert!(begin.elapsed() < HIDDEN, "it waits for what hidden tabs do not get");
        browser.hide(false);
        browser.value("document.getElementById('change').click()");
        browser.until("document.body.dataset.state === undefined");
        browser.value("document.getElementById('clear').click()");
    }
}
