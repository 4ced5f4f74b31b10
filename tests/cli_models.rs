//! The program with models: a tiny one that talks nonsense, and a real one. What goes wrong is told in one sentence and a code.
#![cfg(feature = "cli")]

#[path = "common/data.rs"]
mod data;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/place.rs"]
mod place;

use place::{Place, expect, parsed, program, set, stderr, stdout, talk};
use serde_json::{Value as Json, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const REAL: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

const COMPLETE: [&str; 7] = ["complete", "--device", "cpu", "-n", "4", "-p", "hello"];

#[test]
fn what_a_model_cannot_do_is_told_in_one_line() {
    let place = Place::with(|_| {});
    let complete = |more: &[&str]| place.run(&[&COMPLETE[..], more].concat());
    expect(&complete(&[]), 0, "llama");
    expect(&complete(&["-c", "9999"]), 0, "was trained with 256");
    expect(&place.run(&["complete", "--device", "gpu:nonexistent", "-p", "a"]), 1, "no GPU answers to gpu:nonexistent");
    expect(&place.run(&["complete", "--device", "gpu:77", "-p", "a"]), 1, "no GPU answers to gpu:77");
    let long = "x".repeat(300);
    expect(&place.run(&["complete", "--device", "cpu", "-p", &long]), 2, "300 tokens do not fit the context of 256");
    expect(
        &place.run(&["eval", "--device", "cpu", "--tokens", "1,999"]),
        2,
        "token 999 is outside the vocabulary of 128",
    );
    expect(&place.run(&["perplexity", "--device", "cpu", "-f", "none.txt"]), 1, "none.txt");
    expect(&place.chat("", &["--chat-template", "nonesuch"]), 2, "chatml, llama3");
    expect(&complete(&["--logit-bias", "999+1"]), 2, "999");
}

#[test]
fn files_that_cannot_be_run_say_what_is_unknown_in_them() {
    let martian = Place::with(|json| set(json, "general.architecture", "martian"));
    let output = martian.run(&COMPLETE);
    expect(&output, 1, "martian");
    assert!(stderr(&output).contains("llama") && stderr(&output).contains("qwen3"), "{}", stderr(&output));
    let klingon = Place::with(|json| set(json, "tokenizer.ggml.pre", "klingon"));
    expect(&klingon.run(&["tokenize", "a"]), 1, "klingon");
    expect(&klingon.run(&COMPLETE), 1, "klingon");
    let odd = Place::with(|json| set(json, "tokenizer.ggml.model", "abacus"));
    expect(&odd.run(&COMPLETE), 1, "abacus");
    let silent = Place::with(|json| set(json, "tokenizer.chat_template", "{% if %}"));
    expect(&silent.chat("hi\n", &[]), 1, "tokenizer.chat_template");
    let bare = Place::with(|json| json["kv"].as_array_mut().unwrap().retain(|e| e[0] != "tokenizer.chat_template"));
    expect(&bare.chat("hi\n", &[]), 1, "--chat-template chatml");
    expect(&bare.chat("hi\n", &["--chat-template", "phi3", "-n", "3"]), 0, "");

    let mut bytes = fixture::bytes(&fixture::talker()).unwrap();
    let at = tensor(&bytes, "token_embd.weight").kind;
    bytes[at..at + 4].copy_from_slice(&200u32.to_le_bytes());
    expect(&Place::new(&bytes).run(&COMPLETE), 1, "200");
}

/// Where a tensor's dimensions and its type stand in a file.
struct Spot {
    dims: usize,
    kind: usize,
}

fn tensor(bytes: &[u8], name: &str) -> Spot {
    let wanted: Vec<u8> = (name.len() as u64).to_le_bytes().into_iter().chain(name.bytes()).collect();
    let start = bytes.windows(wanted.len()).position(|w| w == wanted).expect("the tensor is listed") + wanted.len();
    let dims = u32::from_le_bytes(bytes[start..start + 4].try_into().unwrap()) as usize;
    Spot { dims: start + 4, kind: start + 4 + 8 * dims }
}

/// A file of 8 TiB that takes no room on the disk: its last tensor is nothing but a hole.
#[test]
#[cfg(unix)]
fn a_model_bigger_than_memory_is_refused_before_it_is_read() {
    let mut json = fixture::talker();
    let last = json!({"name": "hole.weight", "shape": [32, 1], "scale": 0.0, "offset": 0.0});
    json["tensors"].as_array_mut().unwrap().push(last);
    let mut bytes = fixture::bytes(&json).unwrap();
    let at = tensor(&bytes, "hole.weight").dims;
    for (i, n) in [1u64 << 20, 1 << 21].into_iter().enumerate() {
        bytes[at + 8 * i..at + 8 * i + 8].copy_from_slice(&n.to_le_bytes());
    }
    let place = Place::new(&bytes);
    let file = fs::OpenOptions::new().write(true).open(&place.model).unwrap();
    file.set_len(bytes.len() as u64 + (8 << 40)).expect("a file system with sparse files");
    let output = place.run(&[&COMPLETE[..], &["--ignore-tensors", "hole"]].concat());
    expect(&output, 1, "needs 8192.0 GiB of system memory, which has");
    assert!(stderr(&output).contains("use a smaller model"), "{}", stderr(&output));
}

/// The first line that the chat prints.
#[cfg(unix)]
fn first_answer(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("readable");
    line
}

#[test]
#[cfg(unix)]
fn a_model_file_that_is_cut_off_under_a_running_chat_ends_it_with_an_error() {
    let place = Place::with(|_| {});
    let mut command = place.command(&["chat", "--device", "cpu", "--temp", "0", "-n", "4"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "hello").unwrap();
    assert!(first_answer(&mut child).len() > 1);
    fs::OpenOptions::new().write(true).open(&place.model).unwrap().set_len(0).unwrap();
    writeln!(input, "hello again").unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    expect(&output, 1, "the file shrank");
    assert!(stderr(&output).contains("model.gguf"), "{}", stderr(&output));
}

/// A model with room for a prompt that takes minutes, and such a prompt in a file.
#[cfg(unix)]
fn slow_place() -> (Place, PathBuf) {
    let place = Place::with(|json| fixture::set(json, "llama.context_length", json!(["UINT32"]), (1u32 << 20).into()));
    let text = place.dir.path().join("long.txt");
    fs::write(&text, "the quick brown fox ".repeat(5_000)).expect("written");
    (place, text)
}

const SLOW: [&str; 4] = ["--device", "cpu", "-c", "110000"];

/// Tokens of the prompt that were computed, as the line about the speed says.
#[cfg(unix)]
fn computed(text: &str) -> usize {
    let before = text.split(" prompt token").next().unwrap();
    let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap();
    digits.parse().unwrap_or_else(|e| panic!("{e}: {text:?}"))
}

#[test]
#[cfg(unix)]
fn ctrl_c_in_a_long_prompt_ends_the_program_with_code_130() {
    let (place, text) = slow_place();
    let mut child = place.command(&[&["complete", "-f", text.to_str().unwrap()][..], &SLOW].concat()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("on the CPU"), "{line}");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    expect(&output, 130, "");
    assert_eq!(stdout(&output).trim(), "", "nothing was said");
    assert!(computed(&stderr(&output)) < 100_000, "{}", stderr(&output));
}

/// On a terminal of `script`'s making: util-linux has it, other systems' takes other arguments.
#[test]
#[cfg(target_os = "linux")]
fn ctrl_c_in_a_long_prompt_goes_back_to_the_chat() {
    let (place, text) = slow_place();
    let command = [env!("CARGO_BIN_EXE_wgpu-llm"), "chat -n 5 --temp 0 -m"].join(" ");
    let command = format!("{command} {} {}", place.model.display(), SLOW.join(" "));
    // The shell tells how the chat ended: what `script` itself ends with says something of `script` too.
    let command = format!("trap : INT; {command}; echo \"ended with $?\"");
    let mut script = Command::new("script");
    script.args(["-qfc", &command, "/dev/null"]).env("HOME", place.dir.path()).env("TERM", "xterm");
    let Ok(mut child) = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else {
        eprintln!("ctrl_c_in_a_long_prompt_goes_back_to_the_chat: SKIPPED, no `script` to make a terminal with");
        return;
    };
    let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut seen = String::new();
    let mut wait_for = |what: &str| {
        let mut bytes = [0; 4096];
        while !seen.contains(what) {
            let n = screen.read(&mut bytes).unwrap();
            assert!(n > 0, "no {what:?} in {seen:?}");
            seen += &String::from_utf8_lossy(&bytes[..n]);
        }
        seen.drain(..seen.rfind(what).unwrap() + what.len()).collect::<String>()
    };
    wait_for(">>> ");
    write!(keys, "/read {}\r", text.display()).unwrap();
    wait_for("100000 characters");
    wait_for(">>> ");
    keys.write_all(b"summarize\r").unwrap();
    wait_for("summarize");
    // Until then the line editor has let go of the terminal: before that, Ctrl-C would be a key.
    std::thread::sleep(Duration::from_secs(1));
    keys.write_all(b"\x03").unwrap();
    wait_for("stopped before the answer");
    assert!(computed(&wait_for(" prompt token")) < 100_000);
    keys.write_all(b"/show history\r").unwrap();
    wait_for("nothing was said yet");
    wait_for(">>> ");
    keys.write_all(b"hello\r").unwrap();
    wait_for("of 110000 tokens of context");
    wait_for(">>> ");
    keys.write_all(b"/exit\r").unwrap();
    wait_for("ended with 0");
    child.wait().unwrap();
}

#[test]
fn a_full_context_is_told_and_the_oldest_turns_are_forgotten() {
    let place = Place::with(|_| {});
    let line = format!("{}\n", "x".repeat(70));
    let output = place.chat(line.repeat(4), &["-n", "20", "-sys", "Be brief."]);
    expect(&output, 0, "the context of 256 tokens is full: the oldest");
    assert_eq!(stdout(&output), stdout(&place.chat(line.repeat(4), &["-n", "20", "-sys", "Be brief."])));
    // One answer that goes on until nothing is left to forget.
    let ban: Vec<String> = (96..128).flat_map(|id| ["--logit-bias".to_string(), format!("{id}-inf")]).collect();
    let ban: Vec<&str> = ban.iter().map(String::as_str).collect();
    let output = place.chat("hello\nhello\n", &[&ban[..], &["-n", "200"]].concat());
    expect(&output, 0, "is full: the oldest turn was forgotten");
    expect(&place.chat("hello\n", &ban), 0, "the context is full: the answer ends here");
    expect(&place.chat("y".repeat(300), &[]), 1, "this prompt takes 303 tokens, and the context has 256");
}

#[test]
fn a_chat_is_steered_by_flags_and_commands() {
    let place = Place::with(|_| {});
    let saved = place.dir.path().join("chat.json");
    let script = format!("one\n/set temp 0\n/save {}\n/show history\n/exit\ntwo\n", saved.display());
    let output = place.chat(&script, &["-n", "5", "-sys", "Sing."]);
    expect(&output, 0, "system: Sing.\nuser: one\nassistant: ");
    let file: Json = serde_json::from_str(&fs::read_to_string(&saved).unwrap()).unwrap();
    assert_eq!(file["messages"][1], json!({"role": "user", "content": "one"}));
    assert_eq!(file["messages"].as_array().unwrap().len(), 3);
    assert_eq!(stdout(&output).trim_end_matches('\n'), file["messages"][2]["content"].as_str().unwrap());

    let output = place.chat(format!("/load {}\n/show history\n/show settings\n", saved.display()), &[]);
    expect(&output, 0, "system: Sing.\nuser: one\nassistant: ");
    assert!(stderr(&output).contains("top-k") && stdout(&output).is_empty());
    expect(&place.chat("/set heat 1\n", &[]), 1, "no setting is called heat");
    expect(&place.chat("/load nowhere.json\n", &[]), 1, "nowhere.json");
    expect(&place.chat("/regen\n", &[]), 1, "nothing was answered yet");

    // A prompt in a script is the whole chat: the endless standard input is left alone.
    let mut command =
        place.command(&["run", "--device", "cpu", "--temp", "0", "-n", "5", "-sys", "Sing.", "-p", "one"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let kept = child.stdin.take();
    let alone = child.wait_with_output().unwrap();
    drop(kept);
    assert_eq!(stdout(&alone).trim_end_matches('\n'), file["messages"][2]["content"].as_str().unwrap());
}

#[test]
fn a_chat_goes_on_with_what_was_computed() {
    let place = Place::with(|_| {});
    // Only tokens of one character, so that the text of an answer has the answer's tokens.
    let ban: Vec<String> = (96..128).flat_map(|id| ["--logit-bias".to_string(), format!("{id}-inf")]).collect();
    let ban: Vec<&str> = ban.iter().map(String::as_str).collect();
    let chat = |script: &str, args: &[&str]| place.chat(script, &[&["-n", "5"], args, &ban].concat());
    let whole = chat("one\ntwo\n", &["-sys", "Sing."]);
    let script = "one\n/save --cache chat.cache\n/show stats\n";
    let output = chat(script, &["-sys", "Sing."]);
    expect(&output, 0, "KiB to chat.cache");
    expect(&output, 0, "3 messages and ");
    let first = stdout(&output);
    let output = chat("/load chat.cache\ntwo\n/show stats\n", &[]);
    expect(&output, 0, "3 messages and ");
    assert_eq!(first + &stdout(&output), stdout(&whole), "as if it had never ended");
    // The answer's last token and what follows it: its end, and a question with its marks.
    expect(&output, 0, "8 prompt tokens at");
    // Kept at the end of the chat: the next one has its beginning, and its messages for /load.
    let flags = ["-sys", "Sing.", "--cache-file", "chat.cache"];
    expect(&chat("one\n", &flags), 0, " to chat.cache");
    let output = chat("one\n/show stats\n", &flags);
    expect(&output, 0, " tokens from chat.cache");
    expect(&output, 0, "1 prompt token at");
    expect(&chat("/load chat.cache\n/show history\n", &[]), 0, "system: Sing.\nuser: one\nassistant: ");
    // A chat without a question, or that was forgotten, leaves the file alone.
    let kept = fs::read(place.dir.path().join("chat.cache")).unwrap();
    expect(&chat("/show history\n", &flags), 0, "system: Sing.");
    expect(&chat("two\n/clear\n", &flags), 0, "the chat is forgotten");
    assert_eq!(fs::read(place.dir.path().join("chat.cache")).unwrap(), kept);
    // Nor does a text that would replace it.
    let complete = place.run(&[&COMPLETE[..], &["--cache-file", "chat.cache"]].concat());
    expect(&complete, 2, "holds a conversation of 3 messages");
    assert_eq!(fs::read(place.dir.path().join("chat.cache")).unwrap(), kept);
    // What was forgotten is in no file, whatever it was.
    let forgotten = ["one", "a secret of several words"].map(|secret| {
        let script = format!("{secret}\n/clear\n/save --cache cleared.cache\n");
        expect(&chat(&script, &["-sys", "Sing."]), 0, "1 messages and ");
        fs::read(place.dir.path().join("cleared.cache")).unwrap()
    });
    assert!(forgotten[0] == forgotten[1], "files of {} and {} bytes", forgotten[0].len(), forgotten[1].len());
    // Damage to the cells costs the cells alone.
    let mut damaged = kept.clone();
    let last = damaged.len() - 100;
    damaged[last] ^= 1;
    place.write("damaged.cache", &damaged);
    let output = chat("/load damaged.cache\n/show history\n", &[]);
    expect(&output, 0, "the messages are computed anew");
    expect(&output, 0, "system: Sing.\nuser: one\nassistant: ");
    place.write("letter", "Dear Ann");
    expect(&chat("one\n/save --cache letter\n", &[]), 1, "letter: the file is no saved cache");
    expect(&chat("one\n", &["--cache-file", "letter"]), 2, "letter: the file is no saved cache");
}

#[test]
fn the_same_seed_again_draws_the_same_again() {
    let place = Place::with(|_| {});
    let script = "/set seed 42\none\n/clear\n/set seed 42\none\n/clear\none\n";
    let output = place.chat(script, &["-n", "8", "--temp", "1.5"]);
    let said = stdout(&output);
    let first = place.chat("/set seed 42\none\n", &["-n", "8", "--temp", "1.5"]);
    let first = stdout(&first);
    assert!(said.starts_with(&first.repeat(2)), "{said:?} begins with {first:?} twice");
    assert!(said.len() > 2 * first.len());
}

#[test]
fn commands_print_the_json_they_promise() {
    let place = Place::with(|_| {});
    let text = place.dir.path().join("text.txt");
    fs::write(&text, "the quick brown fox ".repeat(20)).unwrap();
    let record = parsed(&place.run(&[&COMPLETE[..], &["--json", "--temp", "0"]].concat()));
    assert_eq!((record["prompt_tokens"].as_u64(), record["stop"].as_str()), (Some(5), Some("length")));
    assert_eq!(record["tokens"].as_array().unwrap().len(), 4);
    assert!(record["text"].is_string() && record["seed"].is_u64());

    let none = parsed(&place.run(&["complete", "--device", "cpu", "-n", "0", "-p", "hello", "--json"]));
    assert_eq!((&none["tokens"], &none["text"], &none["stop"]), (&json!([]), &"".into(), &"length".into()));
    let all = parsed(&place.run(&["complete", "--device", "cpu", "-n", "-1", "-p", "hello", "--json", "--temp", "0"]));
    assert_eq!(all["truncated"].as_bool(), Some(all["stop"] == "length"), "{all}");

    let whole = parsed(&place.run(&["eval", "--device", "cpu", "--tokens", "1,2,3,4", "--positions", "0,3", "--json"]));
    assert_eq!(whole["positions"], json!([0, 3]));
    let row = |json: &Json, i: usize| -> Vec<f64> {
        json["logits"][i].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    };
    assert_eq!((row(&whole, 0).len(), row(&whole, 1).len()), (128, 128));
    let best = |row: &[f64]| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
    assert_eq!(whole["argmax"], json!([best(&row(&whole, 0)), best(&row(&whole, 1))]));
    let cut = parsed(&place.run(&["eval", "--device", "cpu", "--tokens", "1,2,3,4", "--chunk", "1", "--json"]));
    assert_eq!(cut["positions"], json!([3]));
    let distance = row(&whole, 1).iter().zip(row(&cut, 0)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(distance < 1e-2, "in pieces of one token the logits differ by {distance}");

    let args = ["perplexity", "--device", "cpu", "-c", "128", "--json", "-f", text.to_str().unwrap()];
    let record = parsed(&place.run(&args));
    assert_eq!((&record["chunks"], &record["context"], &record["tokens"]), (&3.into(), &128.into(), &(3 * 63).into()));
    let (perplexity, nll) = (record["perplexity"].as_f64().unwrap(), record["nll"].as_f64().unwrap());
    assert!((nll.exp() / perplexity - 1.0).abs() < 1e-9 && perplexity > 1.0);

    let record = parsed(&place.run(&["tokenize", "--json", "a b"]));
    let ids = [u32::from(b'a' - b'!'), 94, u32::from(b'b' - b'!')];
    assert_eq!(record["tokens"], json!(ids));
    assert_eq!(record["pieces"][1], json!({"id": 94, "piece": " "}));
}

#[test]
fn the_doctor_finds_this_machine_sound() {
    let dir = tempfile::tempdir().unwrap();
    let report = parsed(&program(dir.path()).args(["doctor", "--quick", "--json"]).output().unwrap());
    assert_eq!(report["ok"], true, "{report:#}");
    let kernels = report["kernels"].as_array().unwrap();
    let on = |cpu: bool| kernels.iter().filter(|k| (k["variant"] == "cpu") == cpu).count();
    let ops = wgpu_llm::low_level::ops::AnyOp::NAMES.len();
    assert_eq!(on(true), ops);
    assert_eq!(report["gpu"].is_null(), on(false) == 0, "{report:#}");
    let required = std::env::var_os("WGPU_LLM_GPU").is_some_and(|v| v == "require");
    assert!(!required || on(false) >= ops, "{report:#}");

    let output = program(dir.path()).args(["doctor", "--quick", "--device", "cpu"]).output().unwrap();
    expect(&output, 0, "checking the CPU");
    assert!(stdout(&output).contains("KERNEL") && stdout(&output).contains("All is well."), "{}", stdout(&output));
    expect(&program(dir.path()).args(["doctor", "--device", "gpu:nonexistent"]).output().unwrap(), 1, "no GPU answers");
}

#[test]
fn the_real_model_names_three_colors() {
    let Some(model) = data::find(REAL, "the_real_model_names_three_colors") else { return };
    let dir = tempfile::tempdir().unwrap();
    let ask = || {
        let mut command = program(dir.path());
        command.args(["chat", "--device", "cpu", "--temp", "0", "-n", "60", "-m"]).arg(&model);
        talk(&mut command, "Name three primary colors.\nAnd which of them is the color of the sky?\n")
    };
    let output = ask();
    expect(&output, 0, "on the CPU");
    let text = stdout(&output);
    println!("{text}");
    let named = ["red", "blue", "yellow", "green"].iter().filter(|c| text.to_lowercase().contains(**c)).count();
    assert!(named >= 3, "{text}");
    assert!(text.ends_with('\n') && !text.contains('\x1b') && !text.contains("<|im_"), "{text:?}");
    assert_eq!(text, stdout(&ask()), "the same twice");
}
