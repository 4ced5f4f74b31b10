//! Every flag of llama.cpp, numbers below zero, values that look like flags, and flags that nobody knows.

use super::*;
use crate::app::args::{Cli, Command as Commands};
use clap::{CommandFactory, FromArgMatches};
use std::collections::BTreeSet;

fn read(args: &[&str]) -> Result<Cli, clap::Error> {
    let args = ["wgpu-llm"].iter().chain(args).map(OsString::from);
    parse(Cli::command(), args).and_then(|matches| Cli::from_arg_matches(&matches))
}

fn rewritten(args: &[&str]) -> Vec<String> {
    let mut command = Cli::command();
    command.build();
    let out = rewrite(&command, ["x"].iter().chain(args).map(OsString::from)).unwrap_or_else(|e| panic!("{e}"));
    out[1..].iter().map(|a| a.to_str().unwrap().to_owned()).collect()
}

fn says(args: &[&str]) -> String {
    let e = read(args).expect_err("refused");
    assert_eq!(e.exit_code(), 2, "{e}");
    e.to_string()
}

/// The names in `tests/data/llama_cpp_flags.txt`, each with what follows it.
fn reference() -> Vec<(&'static str, Takes)> {
    let text = include_str!("../../tests/data/llama_cpp_flags.txt");
    let row = |line: &'static str| {
        let (name, takes) = line.split_once(' ').expect("name and value");
        (name, [Takes::Nothing, Takes::Value, Takes::Choice]["01?".find(takes).expect("0, 1 or ?")])
    };
    text.lines().filter(|line| !line.starts_with('#')).map(row).collect()
}

/// Long names of all flags of all commands.
fn all_flags() -> BTreeSet<String> {
    let command = Cli::command();
    let of = |c: &Command| c.get_arguments().filter_map(|a| Some(format!("--{}", a.get_long()?))).collect::<Vec<_>>();
    command.get_subcommands().flat_map(of).collect()
}

#[test]
fn every_flag_of_llama_cpp_is_taken_or_refused_by_its_name() {
    let mut command = Cli::command();
    command.build();
    let (reference, all) = (reference(), all_flags());
    assert!(reference.len() > 450);
    for sub in ["chat", "complete"] {
        let own_flags = command.find_subcommand(sub).expect("a command");
        for (name, takes) in &reference {
            // Its short letter may be another flag's here, and help is help.
            if ["-h", "--help"].contains(name) {
                continue;
            }
            let mut args = vec![sub, name];
            args.extend((*takes != Takes::Nothing).then_some("1"));
            let answer = read(&args).map_err(|e| e.to_string());
            match meaning(own_flags, name) {
                // What is wrong then is the value, or what else it needs.
                Meaning::Own(_) => {
                    let says = answer.err().unwrap_or_else(|| "invalid value".into());
                    let known = ["invalid value", "--hf-repo", "--batch-file", "--context-shift"]
                        .iter()
                        .any(|text| says.contains(text));
                    assert!(known, "{sub} {name}: {says}");
                }
                Meaning::Attached(_) => panic!("{name} is cut up"),
                Meaning::Unknown => {
                    let is_others = *name == "--version" || command.get_subcommands().any(|c| own(c, name).is_some());
                    assert!(is_others, "{sub}: {name} is unknown");
                }
                Meaning::Other(flag) => {
                    assert_eq!(flag.takes, *takes, "{name}");
                    match flag.fate {
                        Fate::Is(long) => assert!(all.contains(long), "{name}: {long}"),
                        Fate::Moot(_) => assert!(answer.is_ok(), "{name}: {answer:?}"),
                        Fate::MootIn(only, _) if only == sub => assert!(answer.is_ok(), "{name}: {answer:?}"),
                        Fate::IsIn(_, why) | Fate::MootIn(_, why) | Fate::No(why) => {
                            let text = answer.expect_err(name);
                            assert!(text.contains(&format!("there is no {name} here: {why}")), "{text}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn every_row_stands_once_and_says_what_to_do() {
    let mut seen = BTreeSet::new();
    for flag in flags::FLAGS {
        for name in flag.names.split(' ') {
            assert!(name.starts_with('-') && seen.insert(name), "{name} stands twice");
        }
        if let Fate::IsIn(_, why) | Fate::Moot(why) | Fate::MootIn(_, why) | Fate::No(why) = flag.fate {
            assert!(why.len() > 10 && !why.ends_with('.'), "{}: {why}", flag.names);
        }
    }
    assert!(flags::says_no("off") && flags::says_no("0") && !flags::says_no("auto") && !flags::says_no("-1"));
}

#[test]
fn flags_get_their_long_names_and_their_values() {
    let args =
        ["chat", "-ngl", "99", "-hf=u/r:Q8_0", "-n", "4", "--top_k", "1", "--n_gpu_layers=a_b", "-c4096", "-n-1"];
    let long = [
        "chat",
        "--n-gpu-layers=99",
        "--hf-repo=u/r:Q8_0",
        "--n-predict=4",
        "--top-k=1",
        "--n-gpu-layers=a_b",
        "--ctx-size=4096",
        "--n-predict=-1",
    ];
    assert_eq!(rewritten(&args), long);
    assert_eq!(rewritten(&["complete", "-p", "the -ngl flag"]), ["complete", "--prompt=the -ngl flag"]);
    assert_eq!(rewritten(&["complete", "-p", "- a list"]), ["complete", "--prompt=- a list"]);
    assert_eq!(rewritten(&["tokenize", "a_b", "--", "-ngl", "--top_k"]), ["tokenize", "a_b", "--", "-ngl", "--top_k"]);
    assert_eq!(rewritten(&["rm", "-y", "-1"]), ["rm", "--yes", "-1"]);
    assert_eq!(
        rewritten(&["run", "-fa", "-no-kvu", "-fa", "on", "--defrag-thold", "-1", "-t", "2"]),
        ["run", "--threads=2"]
    );
    // Where the value was forgotten, the next flag is none.
    assert!(says(&["complete", "-p", "-n", "4"]).contains("a value is required for '--prompt <TEXT>'"));
    assert!(says(&["complete", "-n"]).contains("a value is required for '--n-predict <N>'"));
}

#[cfg(unix)]
#[test]
fn names_that_are_not_unicode_stay_as_they_are() {
    use std::os::unix::ffi::OsStringExt;
    let odd = |start: &str| OsString::from_vec([start.as_bytes(), b"\xff.txt"].concat());
    let mut command = Cli::command();
    command.build();
    for args in [vec!["-f".into(), odd("")], vec![odd("-f")], vec![odd("-f=")], vec![odd("--file=")]] {
        let all = ["x", "complete"].map(OsString::from).into_iter().chain(args);
        assert_eq!(rewrite(&command, all).unwrap()[2], odd("--file="));
    }
}

#[test]
fn numbers_below_zero_are_values() {
    let cli =
        read(&["complete", "-s", "-1", "--temp", "-1", "--top-k", "-1", "--top-nsigma", "-1", "-t", "-1"]).unwrap();
    assert!(matches!(cli.command, Some(Commands::Complete(args)) if args.one.engine.device.threads == Some(0)));
    let cli =
        read(&["complete", "-ngl", "-1", "-c", "-1", "-n", "-2", "-t", "0", "--mirostat", "1", "--mirostat", "2"])
            .unwrap();
    let Some(Commands::Complete(args)) = cli.command else { panic!("another command") };
    assert_eq!(args.one.engine.device.n_gpu_layers, crate::plan::fit::Layers::Auto);
    assert_eq!(args.one.engine.context.ctx_size, Some(0));
    read(&["chat", "-n", "-2", "--temp", "0.1", "--temp", "0.2", "-p", "a", "-p", "b"]).unwrap();
    assert!(says(&["chat", "-n", "-3"]).contains("-2 until the context is full"));
    let bench =
        read(&["bench", "-ngl", "-1", "-m", "a.gguf", "-m", "b.gguf", "-p", "1", "-p", "2", "-r", "1", "-r", "2"]);
    let Some(Commands::Bench(args)) = bench.unwrap().command else { panic!("another command") };
    assert_eq!((args.model.len(), args.n_prompt.len(), args.repetitions), (2, 2, 2));
    let split = read(&["chat", "-ot", "a=cpu,b=gpu", "-ot", "c=cpu"]).unwrap();
    assert!(matches!(split.command, Some(Commands::Chat(_))));
}

#[test]
fn what_nobody_knows_is_never_cut_up() {
    assert!(says(&["complete", "-mg", "0"]).contains("there is no -mg here: one GPU and the CPU for now"));
    assert!(says(&["complete", "-tb", "1"]).contains("there is no -tb here"));
    assert!(says(&["complete", "-nlg", "1"]).contains("unknown flag -nlg\n\n  tip: a similar flag exists: -ngl"));
    assert!(says(&["complete", "-temp", "1"]).contains("unknown flag -temp\n\n  tip: a similar flag exists: --temp"));
    assert!(says(&["complete", "-promt", "1"]).contains("tip: a similar flag exists: --prompt"));
    let far = says(&["complete", "-zzzz=4"]);
    assert!(
        far.contains("unknown flag -zzzz\n") && !far.contains("tip:") && far.contains("Usage: wgpu-llm complete"),
        "{far}"
    );
    assert!(says(&["complete", "--devise", "cpu"]).contains("--device"));
    assert!(says(&["complete", "-x"]).contains("'-x'"));
    assert!(says(&["complete", "-cnv"]).contains("`chat` talks"));
    assert!(says(&["complete", "-hff", "a.gguf"]).contains("--hf-repo"));
}

#[test]
fn distances_are_counted() {
    let cases = [
        ("", "", 0),
        ("ngl", "nlg", 1),
        ("mg", "mgg", 1),
        ("temp", "tmp", 1),
        ("abc", "", 3),
        ("kitten", "sitting", 3),
    ];
    for (a, b, want) in cases {
        assert_eq!((distance(a, b), distance(b, a)), (want, want), "{a} {b}");
    }
}
