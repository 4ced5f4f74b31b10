//! Caches that are kept in files: sessions go on as those that were saved, bit by bit, with only new tokens computed, on any device;
//! files that do not fit are refused by name, and no bytes make the reader fail otherwise.

#[path = "common/device.rs"]
mod device;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/greedy.rs"]
mod greedy;
#[path = "common/tokens.rs"]
mod tokens;

use greedy::greedy;
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokens::tokens;
use wgpu_llm::low_level::base::{Checksum, DType, ErrorKind, Result};
use wgpu_llm::low_level::gguf::Gguf;
use wgpu_llm::low_level::gpu::{Device, FaultKind, InjectedFault};
use wgpu_llm::low_level::model::Model;
use wgpu_llm::low_level::ops::{CACHE_TYPES, CacheTypes, nmse};
use wgpu_llm::low_level::plan::Options;
use wgpu_llm::low_level::run::{SavedCache, Session};
use wgpu_llm::low_level::text::Message;

const CONTEXT: usize = 512;
/// Windows of 32 tokens in some layers.
const WINDOWED: [&str; 3] = ["gemma3-dense", "gpt-oss-moe", "gemma2-dense"];

fn made(json: &Json) -> Arc<Model> {
    let bytes = fixture::bytes(json).expect("well formed");
    Arc::new(Model::new(Gguf::from_bytes(bytes).expect("a file")).expect("a model that runs"))
}

fn model(name: &str) -> Arc<Model> {
    made(&fixture::json(name))
}

fn options() -> Options {
    Options { context: CONTEXT, batch: 48, threads: 2, ..Options::default() }
}

fn session(model: &Arc<Model>, device: &Option<Device>, options: Options) -> Session {
    Session::new(model.clone(), device.clone(), options).expect("a session")
}

/// A folder, and a file in it that is not there yet.
fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("cache");
    (dir, path)
}

fn save(session: &mut Session, path: &Path) -> Vec<u8> {
    let mut size = None;
    let messages = [Message::user("Hi"), Message::assistant("Ho")];
    session.save_cache(path, &messages, &mut |bytes| size = Some(bytes)).expect("saved");
    let bytes = std::fs::read(path).expect("readable");
    assert_eq!(size, Some(bytes.len() as u64), "the size was said before");
    bytes
}

fn load(session: &mut Session, path: &Path) -> Result<()> {
    session.load_cache(SavedCache::open(path)?.expect("a file"))
}

/// Where layers run.
#[derive(Clone, Copy, Debug)]
enum On {
    Cpu,
    Gpu,
    Both,
}

impl On {
    fn session(self, model: &Arc<Model>, device: &Option<Device>, options: Options) -> Session {
        match self {
            On::Cpu => session(model, &None, options),
            On::Gpu => session(model, device, options),
            On::Both => session(model, device, Options { gpu_layers: Some(2), ..options }),
        }
    }
}

/// Saves after a prompt and an answer, and compares how a fresh session goes on with how the saved one does.
fn goes_on(on: On, device: &Option<Device>, kv: CacheTypes) {
    let (model, (_dir, path)) = (model("llama-dense"), place());
    let options = Options { kv, ..options() };
    let mut first = on.session(&model, device, options.clone());
    let answer = greedy(&mut first, &tokens(&model, 1, 150), 9);
    let file = save(&mut first, &path);
    let mut fresh = on.session(&model, device, options);
    load(&mut fresh, &path).expect("loaded");
    assert_eq!(fresh.cached_tokens(), first.cached_tokens(), "{on:?}, {kv}");
    assert_eq!(first.cached_tokens().len(), 158, "the last token of the answer was never computed");
    assert_eq!(save(&mut fresh, &path), file, "{on:?}, {kv}: saved again");

    let prompt = [first.cached_tokens(), &answer.tokens[8..], &tokens(&model, 2, 60)].concat();
    let [a, b] = [&mut first, &mut fresh].map(|session| greedy(session, &prompt, 12));
    assert_eq!(a.tokens, b.tokens, "{on:?}, {kv}");
    assert_eq!((a.prompt_tokens, b.prompt_tokens), (61, 61), "only what is new is computed");
    let more = tokens(&model, 3, 70);
    let [a, b] = [&mut first, &mut fresh].map(|session| session.logits(&more, &[0, 30, 69]).expect("logits"));
    assert_eq!(a, b, "{on:?}, {kv}: logits");
    // Back to within the saved part, by another way on.
    let branch = [&prompt[..100], &tokens(&model, 4, 20)].concat();
    let [a, b] = [&mut first, &mut fresh].map(|session| greedy(session, &branch, 8));
    assert_eq!((a.tokens, b.prompt_tokens), (b.tokens, 20), "{on:?}, {kv}: a branch");
}

/// Pairs of the cache's types: each alone, and two that differ.
fn types() -> impl Iterator<Item = CacheTypes> {
    let mixed = CacheTypes { keys: DType::Q8_0, values: DType::F16 };
    CACHE_TYPES.iter().map(|dtype| (*dtype).into()).chain([mixed])
}

#[test]
fn a_saved_session_goes_on_on_the_cpu() {
    types().for_each(|kv| goes_on(On::Cpu, &None, kv));
}

#[test]
fn a_saved_session_goes_on_on_the_gpu() {
    let device = device::open("a_saved_session_goes_on_on_the_gpu");
    device.iter().for_each(|_| types().for_each(|kv| goes_on(On::Gpu, &device, kv)));
}

#[test]
fn a_saved_session_goes_on_where_layers_are_on_both_devices() {
    let device = device::open("a_saved_session_goes_on_where_layers_are_on_both_devices");
    device
        .iter()
        .for_each(|_| [DType::F16, DType::Q4_0].iter().for_each(|kv| goes_on(On::Both, &device, (*kv).into())));
}

#[test]
fn a_file_is_the_same_on_all_devices() {
    let Some(device) = device::open("a_file_is_the_same_on_all_devices") else { return };
    let (model, (_dir, path), device) = (model("llama-dense"), place(), Some(device));
    let (text, more) = (tokens(&model, 5, 130), tokens(&model, 6, 5));
    for kv in types() {
        for (from, to) in [(On::Cpu, On::Gpu), (On::Cpu, On::Both), (On::Gpu, On::Cpu)] {
            let options = Options { kv, ..options() };
            let mut first = from.session(&model, &device, options.clone());
            greedy(&mut first, &text, 4);
            let file = save(&mut first, &path);
            let want = first.logits(&more, &[4]).expect("logits").remove(0);
            let want: Vec<f64> = want.into_iter().map(f64::from).collect();
            let mut other = to.session(&model, &device, options);
            load(&mut other, &path).expect("loaded");
            assert_eq!(save(&mut other, &path), file, "{kv}, from {from:?} to {to:?}");
            let got = other.logits(&more, &[4]).expect("logits").remove(0);
            let error = nmse(&got, &want);
            assert!(error < 1e-4, "{kv}, from {from:?} to {to:?}: {error}");
        }
    }
}

fn windows_come_back(on: On, device: &Option<Device>, models: &[&str]) {
    for name in models {
        let (model, (_dir, path)) = (model(name), place());
        let mut first = on.session(&model, device, options());
        let prompt = tokens(&model, 7, 200);
        let answer = greedy(&mut first, &prompt, 90);
        let next = [&prompt[..], &answer.tokens, &tokens(&model, 8, 20)].concat();
        greedy(&mut first, &next, 60);
        let file = save(&mut first, &path);
        let load_fresh = || {
            let mut fresh = on.session(&model, device, options());
            load(&mut fresh, &path).expect("loaded");
            fresh
        };
        assert_eq!(save(&mut load_fresh(), &path), file, "{name}: saved again");
        // On from the end, again from where the last answer and the first began, and another way from there.
        let end = [first.cached_tokens(), &tokens(&model, 9, 30)].concat();
        let branch = [&prompt[..], &tokens(&model, 10, 50)].concat();
        for (prompt, new) in [(&end, 30), (&next, 1), (&prompt, 1), (&branch, 50)] {
            let mut kept = load_fresh();
            let (a, b) = (greedy(&mut first, prompt, 40), greedy(&mut kept, prompt, 40));
            assert_eq!(a.tokens, b.tokens, "{name}");
            assert!(b.prompt_tokens <= new + 1, "{name}: {} tokens were computed, {new} are new", b.prompt_tokens);
        }
        // To where nothing is left of the windows: what is needed is computed again.
        let mut kept = load_fresh();
        let early = [&prompt[..100], &tokens(&model, 11, 10)].concat();
        let mut full = on.session(&model, device, Options { swa_full: true, ..options() });
        assert_eq!(greedy(&mut kept, &early, 20).tokens, greedy(&mut full, &early, 20).tokens, "{name}");
    }
}

#[test]
fn windows_come_back_on_the_cpu() {
    windows_come_back(On::Cpu, &None, &WINDOWED);
}

#[test]
fn windows_come_back_on_the_gpu() {
    let device = device::open("windows_come_back_on_the_gpu");
    device.iter().for_each(|_| windows_come_back(On::Gpu, &device, &WINDOWED[..1]));
}

#[test]
fn a_gpu_that_is_lost_meanwhile_costs_time_alone() {
    let Some(device) = device::open("a_gpu_that_is_lost_meanwhile_costs_time_alone") else { return };
    let (model, (_dir, path)) = (model("llama-dense"), place());
    let device = Some(device.reopen().expect("it is there"));
    let mut first = session(&model, &device, options());
    greedy(&mut first, &tokens(&model, 12, 100), 5);
    let fed = first.cached_tokens().to_vec();
    let lost = InjectedFault { kind: FaultKind::Lost, at: 3 };
    device.as_ref().expect("opened").inject([lost]);
    save(&mut first, &path);
    assert_eq!(first.cached_tokens(), fed, "the file was written by the GPU that took its place");
    let again = first.device().expect("opened again").reopen().expect("it is there");
    let mut other = session(&model, &Some(again.clone()), options());
    load(&mut other, &path).expect("loaded");
    let prompt = [&fed[..], &tokens(&model, 13, 40)].concat();
    let want = greedy(&mut first, &prompt, 20).tokens;
    again.inject([lost]);
    assert_eq!(greedy(&mut other, &prompt, 20).tokens, want, "its tokens are fed again");
    // While the cells are written.
    let again = other.device().expect("opened again").reopen().expect("it is there");
    let mut other = session(&model, &Some(again.clone()), options());
    again.inject([InjectedFault { at: 1, ..lost }]);
    load(&mut other, &path).expect("loaded");
    assert!(other.device().is_some_and(|device| device.check().is_ok()), "another took its place");
    let got = greedy(&mut other, &prompt, 20);
    assert_eq!((got.tokens, got.prompt_tokens), (want, 40));
}

/// The error of loading the file at `path` with these options.
#[track_caller]
fn refused(model: &Arc<Model>, path: &Path, options: Options) -> String {
    let mut session = session(model, &None, options);
    session.logits(&[1, 2, 3], &[2]).expect("logits");
    let error = load(&mut session, path).expect_err("refused");
    if error.kind() == ErrorKind::Usage {
        assert_eq!(session.cached_tokens(), [1, 2, 3], "the session is as it was");
    }
    let text = error.to_string();
    assert!(text.starts_with(&path.display().to_string()), "{text}");
    text
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let (own, (dir, path)) = (model("gemma3-dense"), place());
    let mut first = session(&own, &None, options());
    greedy(&mut first, &tokens(&own, 14, 300), 3);
    let file = save(&mut first, &path);

    let mut json = fixture::json("gemma3-dense");
    json["seed"] = 99.into();
    fixture::set(&mut json, "general.name", json!(["STRING"]), "Another".into());
    let text = refused(&made(&json), &path, options());
    assert!(text.contains("is of the model") && text.contains("gemma3") && text.contains("this is Another"), "{text}");
    // The same metadata, other weights.
    let mut json = fixture::json("gemma3-dense");
    json["seed"] = 99.into();
    assert!(refused(&made(&json), &path, options()).contains("is of the model"));

    let kv = CacheTypes { keys: DType::Q8_0, values: DType::F16 };
    let text = refused(&own, &path, Options { kv, ..options() });
    assert!(text.contains("keys of f16 and values of f16, and these are q8_0/f16; use --cache-type-k f16"), "{text}");
    let text = refused(&own, &path, Options { context: 256, ..options() });
    assert!(text.contains("has 302 tokens, and the context 256; use a larger context (-c 512)"), "{text}");
    assert!(refused(&own, &path, Options { swa_full: true, ..options() }).contains("--swa-full"));

    let long = model("phi3-longrope-long");
    let mut first = session(&long, &None, options());
    first.logits(&[1, 2, 3], &[]).expect("computed");
    save(&mut first, &path);
    let text = refused(&long, &path, Options { context: 16, ..options() });
    assert!(text.contains("of a context of 512 tokens, this of 16") && text.contains("-c 512"), "{text}");

    // What is no saved cache stays.
    for (name, content) in [("letter", &b"Dear Ann, how are you?"[..]), ("short", b"WGPU"), ("empty", b"")] {
        let path = dir.path().join(name);
        std::fs::write(&path, content).expect("written");
        assert!(refused(&own, &path, options()).contains("no saved cache of wgpu-llm; name another file"));
        let error = first.save_cache(&path, &[], &mut |_| panic!("nothing is begun")).expect_err("refused");
        assert!(error.to_string().contains("is not written over"), "{error}");
        assert_eq!(std::fs::read(&path).expect("readable"), content);
        assert!(!SavedCache::is_at(&path));
    }
    for path in [dir.path().to_owned(), dir.path().join("none/cache")] {
        let error = first.save_cache(&path, &[], &mut |_| {}).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    }
    assert!(SavedCache::open(&dir.path().join("none/cache")).err().expect("refused").to_string().contains("no folder"));
    assert!(SavedCache::open(&dir.path().join("new")).expect("no file is no error").is_none());

    let mut newer = file.clone();
    newer[8] = 2;
    std::fs::write(&path, newer).expect("written");
    assert!(refused(&own, &path, options()).contains("is of version 2, and only version 1 is known"));
    assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 4, "nothing is left beside them");
}

#[cfg(unix)]
#[test]
fn only_its_owner_reads_a_saved_cache() {
    use std::os::unix::fs::PermissionsExt;
    let (model, (_dir, path)) = (model("llama-dense"), place());
    let mut session = session(&model, &None, options());
    session.logits(&[1, 2], &[1]).expect("logits");
    for _ in 0..2 {
        save(&mut session, &path);
        let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("its owner may");
    }
}

/// A small file with a changed header, its checksum being right.
fn with_header(file: &[u8], change: impl FnOnce(&mut Json)) -> Vec<u8> {
    let len = u32::from_le_bytes(file[12..16].try_into().expect("4 bytes")) as usize;
    let mut header: Json = serde_json::from_slice(&file[16..16 + len]).expect("JSON");
    change(&mut header);
    let json = serde_json::to_vec(&header).expect("JSON");
    let front = [&file[..12], &(json.len() as u32).to_le_bytes(), &json].concat();
    [&front, &Checksum::of(&front).to_le_bytes()[..], &file[16 + len + 8..]].concat()
}

#[test]
fn no_bytes_make_the_reader_fail_otherwise() {
    let (model, (_dir, path)) = (model("gemma3-dense"), place());
    let mut first = session(&model, &None, options());
    greedy(&mut first, &tokens(&model, 15, 130), 3);
    let file = save(&mut first, &path);
    let mut session = session(&model, &None, options());
    let mut read = |bytes: &[u8], what: &str| {
        std::fs::write(&path, bytes).expect("written");
        match load(&mut session, &path) {
            Ok(()) => panic!("{what} is not noticed"),
            Err(e) => {
                assert!(
                    matches!(e.kind(), ErrorKind::Format | ErrorKind::Usage | ErrorKind::Unsupported),
                    "{what}: {e}"
                );
                assert!(session.cached_tokens().is_empty(), "{what}");
                e.to_string()
            }
        }
    };
    // Cut off, gone on with, and with single bits changed: in the header every byte, of the cells some.
    let header = 16 + u32::from_le_bytes(file[12..16].try_into().expect("4 bytes")) as usize + 8;
    let some = (0..header).step_by(5).chain((header..file.len()).step_by(file.len() / 30)).chain([file.len() - 1]);
    for len in some {
        read(&file[..len], &format!("{len} of {} bytes", file.len()));
    }
    assert!(read(&file[..file.len() - 1], "a byte less").contains("and should have"));
    assert!(read(&[&file[..], &[0]].concat(), "a byte more").contains("and should have"));
    for at in (0..header).chain((header..file.len()).step_by(file.len() / 60)).chain(file.len() - 9..file.len()) {
        let mut other = file.clone();
        other[at] ^= 1 << (at % 8);
        read(&other, &format!("byte {at}"));
    }
    // Headers that say what cannot be, with a checksum that is right.
    let huge = json!(u64::MAX);
    let changes: [(&str, &str, Json); 16] = [
        ("no tokens", "/tokens", json!([])),
        ("other tokens", "/tokens/0", json!(128)),
        ("no number", "/tokens/0", json!(-1)),
        ("no states", "/states", json!([])),
        ("a state without tokens", "/states/0/tokens", json!(0)),
        ("a state of many tokens", "/states/0/tokens", huge.clone()),
        ("a state behind the end", "/states/1/tokens", json!(1000)),
        ("a state before the end", "/states/1/tokens", json!(131)),
        ("no groups in a state", "/states/0/gone", json!([])),
        ("pages of all layers gone", "/states/0/gone/0", json!(1)),
        ("a window gone", "/states/1/gone/1", json!(2)),
        ("everything gone", "/states/1/gone/1", huge.clone()),
        ("no bytes", "/bytes", json!(0)),
        ("many bytes", "/bytes", huge),
        ("other groups", "/groups", json!(1)),
        ("another rotation", "/rotation", json!("00")),
    ];
    for (what, pointer, value) in changes {
        let set = |header: &mut Json| *header.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
        read(&with_header(&file, set), what);
    }
    read(&with_header(&file, |header| header["more"] = 1.into()), "a field too many");
    read(&with_header(&file, |header| *header = json!([1])), "no object");
    std::fs::write(&path, with_header(&file, |_| {})).expect("written");
    load(&mut session, &path).expect("as it was");
    assert_eq!(save(&mut session, &path), file);
}
