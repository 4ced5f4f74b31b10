//! Texts as a user gives them: from arguments, files and pipes, in any encoding, with special tokens and bytes that no token has.
#![cfg(feature = "cli")]

#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/place.rs"]
mod place;

use place::{Place, expect, parsed, stderr, stdout, talk};
use serde_json::{Value as Json, json};
use std::fs::File;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const COMPLETE: [&str; 8] = ["complete", "--device", "cpu", "--temp", "0", "-n", "3", "--json"];

/// The ids of characters in the tiny vocabulary.
fn ids(text: &str) -> Vec<u32> {
    let id = |c| match c {
        ' ' => 94,
        '\n' => 95,
        c => u32::from(c) - u32::from('!'),
    };
    text.chars().map(id).collect()
}

#[track_caller]
fn tokens(output: &Output) -> Json {
    parsed(output)["tokens"].clone()
}

fn tokenize(place: &Place, args: &[&str]) -> Command {
    place.command(&[&["tokenize", "--json"], args].concat())
}

/// What the program makes of a standard input that stays open and silent.
fn beside_silence(command: &mut Command) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn().expect("runs");
    let kept = child.stdin.take();
    let output = child.wait_with_output().expect("ends");
    drop(kept);
    output
}

/// What it makes of a pipe that everything is in already.
fn piped(command: &mut Command, text: &str) -> Output {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(text.as_bytes()).expect("fits");
    drop(writer);
    command.stdin(reader).output().expect("runs")
}

/// What it makes of one that says something only after a while.
fn late(command: &mut Command, text: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn().expect("runs");
    let mut input = child.stdin.take().expect("piped");
    std::thread::sleep(Duration::from_millis(700));
    // One that does not wait for it is no failure of the test.
    let _ = input.write_all(text.as_bytes());
    drop(input);
    child.wait_with_output().expect("ends")
}

fn utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(unit).collect()
}

#[test]
fn a_byte_that_the_vocabulary_lacks_is_left_out_and_told_once() {
    let place = Place::with(|_| {});
    let output = talk(&mut tokenize(&place, &[]), b"x\x04y\x04\n");
    assert_eq!(tokens(&output), json!(ids("xy\n")));
    expect(&output, 0, "warning: the vocabulary has no token for the byte 0x04 at offset 1 of the text");
    assert_eq!(stderr(&output).matches("no token for").count(), 1, "{}", stderr(&output));

    let record = parsed(&place.run(&[&COMPLETE[..], &["-p", "a\u{4}é"]].concat()));
    assert_eq!(record["prompt_tokens"], 1);
    let output = place.chat(b"one\x04\ntwo\x06\n", &["-n", "3"]);
    expect(&output, 0, "0x04 after \"<|user|>one\"");
    assert_eq!(stderr(&output).matches("no token for").count(), 1, "{}", stderr(&output));
    assert_eq!(stdout(&output), stdout(&place.chat("one\ntwo\n", &["-n", "3"])));
}

#[test]
fn a_text_is_read_once_wherever_it_comes_from() {
    let place = Place::with(|_| {});
    let file = place.write("text.txt", "the fox");
    let file = file.to_str().unwrap();
    let wanted = parsed(&place.run(&[&COMPLETE[..], &["-p", "the fox"]].concat()));
    assert_eq!(wanted["prompt_tokens"], 7);
    let complete = |args: &[&str]| place.command(&[&COMPLETE[..], args].concat());
    let same = |output: &Output| {
        let record = parsed(output);
        assert_eq!((&record["tokens"], &record["prompt_tokens"]), (&wanted["tokens"], &wanted["prompt_tokens"]));
    };
    same(&complete(&["-f", file]).output().unwrap());
    same(&complete(&[]).stdin(File::open(file).unwrap()).output().unwrap());
    for args in [&[][..], &["-f", "-"], &["-f", "/dev/stdin"]] {
        if cfg!(unix) || !args.contains(&"/dev/stdin") {
            same(&talk(&mut complete(args), "the fox"));
            same(&late(&mut complete(args), "the fox"));
            let ids = tokens(&talk(&mut tokenize(&place, args), "the fox"));
            assert_eq!(ids, json!(self::ids("the fox")));
        }
    }
    assert_eq!(tokens(&tokenize(&place, &["-f", file]).output().unwrap()), json!(ids("the fox")));
    assert_eq!(tokens(&tokenize(&place, &["-p", "the fox"]).output().unwrap()), json!(ids("the fox")));
    // A text that is written leaves standard input alone.
    same(&beside_silence(&mut complete(&["-p", "the fox"])));
    assert_eq!(tokens(&beside_silence(&mut tokenize(&place, &["the fox"]))), json!(ids("the fox")));

    let long = "the quick brown fox ".repeat(20);
    place.write("long.txt", &long);
    let args = ["perplexity", "--device", "cpu", "-c", "128", "--json"];
    let wanted = parsed(&place.run(&[&args[..], &["-f", "long.txt"]].concat()));
    for more in [&[][..], &["-f", "-"]] {
        assert_eq!(parsed(&talk(&mut place.command(&[&args[..], more].concat()), &long)), wanted);
    }
    expect(&place.run(&["complete", "-f", "none.txt"]), 1, "none.txt: can't read the text");
    expect(&place.run(&["complete", "-f", "."]), 1, "can't read the text");
}

/// What a chat says to one prompt, whatever its lines.
fn answer(place: &Place, prompt: &str) -> String {
    let output = place.chat(format!("\"\"\"\n{prompt}\n\"\"\"\n"), &["-n", "6"]);
    expect(&output, 0, "");
    stdout(&output)
}

#[test]
fn what_is_piped_in_beside_a_question_goes_before_it() {
    let place = Place::with(|_| {});
    let file = place.write("text.txt", "a fox\nand a dog\n");
    let (alone, both) = (answer(&place, "who?"), answer(&place, "a fox\nand a dog\n\nwho?"));
    assert_ne!(alone, both, "the model tells them apart");
    let chat = |args: &[&str]| place.command(&[&["chat", "--device", "cpu", "--temp", "0", "-n", "6"], args].concat());
    let says = |output: Output, wanted: &str| {
        expect(&output, 0, "");
        assert_eq!(stdout(&output), wanted, "{}", stderr(&output));
    };
    let text = "a fox\nand a dog\n";
    says(chat(&["-p", "who?"]).stdin(File::open(&file).unwrap()).output().unwrap(), &both);
    says(piped(&mut chat(&["-p", "who?"]), text), &both);
    says(piped(&mut chat(&["-p", "who?"]), ""), &alone);
    says(chat(&["-p", "who?"]).output().unwrap(), &alone);
    says(chat(&["-p", "who?", "-f", "text.txt"]).output().unwrap(), &both);
    let silent = beside_silence(&mut chat(&["-p", "who?"]));
    expect(&silent, 0, "standard input is left alone");
    says(silent, &alone);
    // What comes late is waited for only if that is asked for.
    says(late(&mut chat(&["-p", "who?", "-f", "-"]), text), &both);
    // A file alone is the question, and the whole chat.
    let whole = answer(&place, "a fox\nand a dog");
    says(chat(&["-f", "text.txt"]).output().unwrap(), &whole);
    says(talk(&mut chat(&["-f", "-"]), text), &whole);
    expect(&talk(&mut chat(&["-f", "-"]), " \n"), 2, "standard input: an empty prompt");
}

#[test]
fn special_tokens_are_parsed_in_raw_prompts_and_nowhere_else() {
    let place = Place::with(|_| {});
    let text = "<|user|>a<|end|>";
    let (user, end) = (96, 99);
    assert_eq!(tokens(&tokenize(&place, &[text]).output().unwrap()), json!([user, ids("a")[0], end]));
    assert_eq!(tokens(&tokenize(&place, &["--no-special", text]).output().unwrap()), json!([user, ids("a")[0], end]));
    assert_eq!(tokens(&tokenize(&place, &["--no-parse-special", text]).output().unwrap()), json!(ids(text)));
    assert_eq!(tokens(&talk(&mut tokenize(&place, &["--no-parse-special"]), text)), json!(ids(text)));

    let count = |args: &[&str]| parsed(&place.run(&[&COMPLETE[..], args].concat()))["prompt_tokens"].clone();
    place.write("text.txt", text);
    assert_eq!((count(&["-p", text]), count(&["-f", "text.txt"])), (3.into(), 3.into()));
    assert_eq!(count(&["-p", text, "--no-parse-special"]), text.len());
    assert_eq!(parsed(&talk(&mut place.command(&COMPLETE), text))["prompt_tokens"], 3);

    let short = place.run(&["perplexity", "--device", "cpu", "-c", "128", "-f", "text.txt"]);
    expect(&short, 2, "text.txt: 16 tokens are less than one context of 128");
    // Each name has eight characters, and the template adds three tokens.
    expect(&place.chat("<|user|>".repeat(40), &[]), 1, "this prompt takes 323 tokens");
}

#[test]
fn a_bad_line_of_a_piped_chat_is_told_and_the_rest_answered() {
    let place = Place::with(|_| {});
    let lines = [
        "hello",
        &"y".repeat(300),
        "/set heat 1",
        "/set temp",
        "\"\"\"",
        &"z".repeat(300),
        "\"\"\"",
        "/read none.txt",
        "bye",
    ];
    let output = place.chat(lines.join("\n"), &["-n", "3"]);
    expect(&output, 1, "standard input: 5 of 7 prompts and commands failed");
    for says in [
        "standard input, line 2: this prompt takes 303 tokens",
        "standard input, line 3: no setting is called heat",
        "standard input, line 4: /set needs",
        "standard input, line 5: this prompt takes 303 tokens",
        "standard input, line 8, none.txt: can't read the text",
    ] {
        assert!(stderr(&output).contains(says), "{says}: {}", stderr(&output));
    }
    assert_eq!(stdout(&output), stdout(&place.chat("hello\nbye\n", &["-n", "3"])));

    // A line that nobody should hold in memory.
    let mut command = place.command(&["chat", "--device", "cpu", "--temp", "0", "-n", "3"]);
    let output = talk(&mut command, [&vec![b'x'; 20 << 20][..], b"\nhello\n"].concat());
    expect(&output, 1, "standard input, line 1: a line of more than 16.0 MiB");
    assert_eq!(stdout(&output), stdout(&place.chat("hello\n", &["-n", "3"])));
}

#[test]
fn a_perplexity_of_nothing_is_an_error_that_says_why() {
    let place = Place::with(|_| {});
    place.write("text.txt", "the quick brown fox ".repeat(20));
    let run =
        |args: &[&str]| place.run(&[&["perplexity", "--device", "cpu", "-f", "text.txt", "--json"], args].concat());
    for context in ["1", "2"] {
        expect(&run(&["-c", context]), 2, &format!("a context of {context} leaves nothing to score"));
    }
    expect(&run(&["-c", "128", "--chunks", "0"]), 2, "--chunks 0 leaves nothing to score");
    let record = parsed(&run(&["-c", "3"]));
    assert_eq!((&record["chunks"], &record["tokens"]), (&133.into(), &133.into()));
    let all = parsed(&run(&["-c", "128"]));
    assert_eq!(parsed(&run(&["-c", "128", "--chunks", "-1"])), all);
    assert_eq!(all["chunks"], 3);
    assert_eq!(parsed(&run(&["-c", "128", "--chunks", "2"]))["chunks"], 2);
}

#[test]
fn text_in_any_encoding_is_read_by_one_rule() {
    let place = Place::with(|_| {});
    let bad = "bad.txt: the byte 0xff at offset 1 is not UTF-8; it and 1 more are read as U+FFFD";
    place.write("bad.txt", b"a\xffb\xfec");
    let output = tokenize(&place, &["-f", "bad.txt"]).output().unwrap();
    expect(&output, 0, bad);
    assert_eq!(tokens(&output), json!(ids("abc")), "the vocabulary has no U+FFFD");
    expect(&place.run(&[&COMPLETE[..], &["-f", "bad.txt"]].concat()), 0, bad);
    expect(&place.run(&["chat", "--device", "cpu", "-n", "1", "-p", "a", "-f", "bad.txt"]), 0, bad);
    expect(&place.chat("/read bad.txt\nhello\n", &["-n", "1", "-sysf", "bad.txt"]), 0, bad);
    expect(&place.run(&["perplexity", "--device", "cpu", "-c", "3", "-f", "bad.txt"]), 0, bad);
    expect(&place.chat(b"one\nt\xffo\n", &["-n", "1"]), 0, "standard input, line 2: the byte 0xff at offset 1 is not");
    let piped = talk(&mut tokenize(&place, &[]), b"a\xff");
    expect(&piped, 0, "standard input: the byte 0xff at offset 1 is not UTF-8; it is read as U+FFFD");

    let (le, be) = (utf16("a b\n", u16::to_le_bytes), utf16("a b\n", u16::to_be_bytes));
    for (bytes, name) in [(&le, "UTF-16 (little-endian)"), (&be, "UTF-16 (big-endian)")] {
        place.write("utf16.txt", bytes);
        let output = tokenize(&place, &["-f", "utf16.txt"]).output().unwrap();
        expect(&output, 0, &format!("utf16.txt: {name}, by its byte-order mark"));
        assert_eq!(tokens(&output), json!(ids("a b\n")));
        assert_eq!(tokens(&talk(&mut tokenize(&place, &[]), bytes)), json!(ids("a b\n")));
        let output = place.chat(bytes, &["-n", "3"]);
        expect(&output, 0, name);
        assert_eq!(stdout(&output), stdout(&place.chat("a b\n", &["-n", "3"])));
    }
    place.write("cut.txt", &le[..le.len() - 1]);
    let cut = tokenize(&place, &["-f", "cut.txt"]).output().unwrap();
    expect(&cut, 0, "cut.txt: the byte 0x0a at offset 8 is not UTF-16 (little-endian)");
    place.write("mark.txt", b"\xef\xbb\xbfa");
    let output = tokenize(&place, &["-f", "mark.txt"]).output().unwrap();
    assert_eq!((tokens(&output), stderr(&output)), (json!(ids("a")), String::new()));
}

/// Other systems' file systems want names that are text.
#[test]
#[cfg(target_os = "linux")]
fn names_and_arguments_need_not_be_text() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let name = |bytes: &'static [u8]| OsStr::from_bytes(bytes);
    let place = Place::with(|_| {});
    let model = place.dir.path().join(name(b"m\xff.gguf"));
    std::fs::rename(&place.model, &model).unwrap();
    let text = place.write(name(b"t\xff.txt"), "the fox");
    let template = place.write(name(b"c\xff.jinja"), "{{ messages[0].content }}");
    let trace = place.dir.path().join(name(b"trace\xff.json"));
    let run = |args: &[&OsStr]| {
        let mut command = place::program(place.dir.path());
        command.args(args).arg("-m").arg(&model).output().unwrap()
    };
    let os = OsStr::new;
    let output = run(&[
        os("complete"),
        os("--device=cpu"),
        os("-n2"),
        os("-f"),
        text.as_os_str(),
        os("--trace"),
        trace.as_os_str(),
    ]);
    expect(&output, 0, "m\u{fffd}.gguf");
    assert!(trace.exists());
    expect(&run(&[os("inspect")]), 0, "");
    expect(&run(&[os("fit"), os("--device=cpu")]), 0, "");
    expect(&run(&[os("bench"), os("--device=cpu"), os("-p8"), os("-n2"), os("-r1")]), 0, "");
    let chat = [
        os("chat"),
        os("--device=cpu"),
        os("-n2"),
        os("--chat-template"),
        template.as_os_str(),
        os("-sysf"),
        text.as_os_str(),
    ];
    expect(&run(&[&chat[..], &[os("-f"), text.as_os_str()]].concat()), 0, "");
    let mut inspect = place::program(place.dir.path());
    expect(&inspect.arg("inspect").arg(&model).output().unwrap(), 0, "");

    let output = run(&[os("tokenize"), os("--json"), name(b"a\xffb")]);
    expect(&output, 0, "the prompt: the byte 0xff at offset 1 is not UTF-8");
    assert_eq!(tokens(&output), json!(ids("ab")));
    let output = run(&[os("chat"), os("--device=cpu"), os("-n1"), os("-p"), name(b"\xff"), os("-sys"), name(b"\xfe")]);
    expect(&output, 0, "the system prompt: the byte 0xfe at offset 0");
    expect(&output, 0, "the prompt: the byte 0xff at offset 0");

    let gone = run(&[os("complete"), os("-f"), name(b"none\xff.txt")]);
    expect(&gone, 1, "none\u{fffd}.txt");
}
