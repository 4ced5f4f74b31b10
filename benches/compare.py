#!/usr/bin/env python3
"""Runs wgpu-llm and llama.cpp alternately on the same files and prints ratios with medians and spread.

    benches/compare.py --llama-bench PATH -m a.gguf b.gguf -p 512 -n 64 -d 0,4096 -t 2 --rounds 5
    benches/compare.py --llama-batched-bench PATH -m a.gguf --parallel 1,4,16,64 -p 128 -n 128 -t 2 --rounds 3

Each round runs every contender once on every model, each in a process of its own, and begins with another contender than the
round before: what drifts on the machine meets all of them alike. llama.cpp takes part once with each --peer-flags; of its
medians the better one counts.
"""

import argparse
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OURS = "wgpu-llm"
PEER = "llama.cpp"
# llama.cpp repacks weights at load, which pays for some formats and costs for others. Its programs name the flag differently.
PEER_FLAGS = ["", "--repack 0"]
PEER_FLAGS_PARALLEL = ["", "--no-repack"]


def arguments(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", default="target/release/wgpu-llm", metavar="PATH", help="the program wgpu-llm")
    peer = parser.add_mutually_exclusive_group(required=True)
    peer.add_argument("--llama-bench", dest="peer", metavar="PATH", help="the program llama-bench")
    peer.add_argument("--llama-batched-bench", dest="peer", metavar="PATH", help="the program llama-batched-bench, for --parallel")
    parser.add_argument("-m", "--models", nargs="+", required=True, metavar="FILE", help="GGUF files")
    parser.add_argument("-p", "--n-prompt", default=None, metavar="N,N", help="tokens of prompts, 0 for none (default: 512)")
    parser.add_argument("-n", "--n-gen", default=None, metavar="N,N", help="tokens of answers, 0 for none (default: 64)")
    parser.add_argument("-d", "--n-depth", default="0", metavar="N,N", help="tokens before; each test runs at each depth (default: 0)")
    parser.add_argument("--parallel", metavar="N,N", help="so many prompts and answers at once: speeds are those of all together")
    parser.add_argument("--tests", nargs="+", default=[], metavar="TEST", help="single tests, as in pp512 tg64@d4096")
    parser.add_argument("-t", "--threads", type=int, default=os.cpu_count(), metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="at least 5 for figures to be kept (default: 5)")
    parser.add_argument("--device", default="cpu", metavar="DEVICE", help="ours: cpu, gpu, gpu:N (default: cpu)")
    parser.add_argument("--our-flags", default="", metavar="FLAGS", help="more flags for ours")
    parser.add_argument("--peer-flags", action="append", metavar="FLAGS",
                        help=f"flags for its program, given as --peer-flags='FLAGS', once for each setting (default: none, and without repacking)")
    parser.add_argument("--pause", type=float, default=1.0, metavar="SECONDS", help="rest between runs (default: 1)")
    parser.add_argument("--out", metavar="STEM", help="write STEM.md and STEM.json too")
    parser.add_argument("--json", action="store_true", help="print JSON, with every sample")
    args = parser.parse_args(words)
    args.peer_flags = args.peer_flags or (PEER_FLAGS_PARALLEL if args.parallel else PEER_FLAGS)
    try:
        args.tests = all_tests(args)
    except ValueError as error:
        parser.error(str(error))
    if args.rounds < 1:
        parser.error("--rounds must be at least 1")
    if not args.tests:
        parser.error("there is nothing to measure: give -p, -n or --tests")
    for path in [args.ours, args.peer, *args.models]:
        if not Path(path).is_file():
            parser.error(f"there is no file {path}")
    return args


def numbers(flag, text):
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise ValueError(f"{flag} {text}: write numbers separated by commas")
    return [int(word) for word in text.split(",")]


def all_tests(args):
    """(kind, tokens, depth, number at once) of every test, each once. With --tests alone only those. The last is 0 outside --parallel."""
    if args.parallel:
        if args.tests or args.n_depth != "0":
            raise ValueError("--parallel begins with empty caches: leave out -d and --tests")
        prompt, answer = (numbers(flag, text or "128") for flag, text in (("-p", args.n_prompt), ("-n", args.n_gen)))
        if len(prompt) != 1 or len(answer) != 1:
            raise ValueError("--parallel takes one -p and one -n")
        return [test for users in numbers("--parallel", args.parallel) for test in (("pp", *prompt, 0, users), ("tg", *answer, 0, users))]
    usual = ("0", "0") if args.tests else ("512", "64")
    prompts, answers = (given or default for given, default in zip((args.n_prompt, args.n_gen), usual))
    tests = [
        (kind, tokens, depth, 0)
        for depth in numbers("-d", args.n_depth)
        for kind, list in (("pp", numbers("-p", prompts)), ("tg", numbers("-n", answers)))
        for tokens in list
        if tokens > 0
    ]
    for text in args.tests:
        match = re.fullmatch(r"(pp|tg)([1-9]\d*)(?:\s*@\s*d(\d+))?", text)
        if not match:
            raise ValueError(f"--tests {text}: write a test as pp512, tg64 or tg64@d4096")
        tests.append((match[1], int(match[2]), int(match[3] or 0), 0))
    return list(dict.fromkeys(tests))


def name_of(test):
    kind, tokens, depth, users = test
    return f"{kind}{tokens}" + (f" @ d{depth}" if depth else "") + (f" × {users}" if users else "")


def contenders(args):
    """Name and command line up to the model, of everyone who takes part."""
    common = ["-t", str(args.threads), "-r", "1", "-o", "json"]
    theirs = common
    if args.parallel:
        _, prompt, _, _ = args.tests[0]
        _, answer, _, most = max(args.tests, key=lambda test: (test[0] == "tg", test[3]))
        common = ["-t", str(args.threads), "-npp", str(prompt), "-ntg", str(answer)]
        theirs = [*common, "-npl", args.parallel, "--output-format", "jsonl", "-c", str(most * (prompt + answer))]
        common = [*common, "--parallel", args.parallel, "-o", "jsonl"]
    ours = [args.ours, "bench", "--device", args.device, *shlex.split(args.our_flags), *common]
    # On the CPU means that no layer goes to a GPU that llama.cpp may have been built for.
    layers = ["-ngl", "0"] if args.device == "cpu" else []
    peers = [(f"{PEER} {flags}".strip(), [args.peer, *theirs, *layers, *shlex.split(flags)]) for flags in args.peer_flags]
    return [(OURS, ours), *peers]


def run(command):
    """Standard output as JSON, or a list of its lines that are, and the process's peak memory in bytes."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        out = process.stdout.read()
        # Not Popen.wait: only wait4 tells the peak memory.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            log.seek(0)
            sys.exit(f"{shlex.join(command)} failed:\n{log.read().decode(errors='replace')}")
    # Bytes on macOS, kilobytes elsewhere.
    lines = [json.loads(line) for line in out.splitlines() if line.startswith(b'{"')]
    return lines or json.loads(out), usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(command, model, tests, rows, peaks):
    """Runs all tests of one contender on one model; a process for each depth, since flags are combined."""
    if tests[0][3]:
        found, peak = run([*command, "-m", model])
        peaks.append(peak)
        for row in found:
            for kind in ("pp", "tg"):
                rows.setdefault((kind, row[kind], 0, row["pl"]), []).append({"avg_ts": row[f"speed_{kind}"]})
        return
    for depth in sorted({test[2] for test in tests}):
        sizes = {kind: [str(t[1]) for t in tests if t[0] == kind and t[2] == depth] for kind in ("pp", "tg")}
        flags = ["-m", model, "-p", ",".join(sizes["pp"]) or "0", "-n", ",".join(sizes["tg"]) or "0", "-d", str(depth)]
        found, peak = run([*command, *flags])
        peaks.append(peak)
        for row in found:
            kind, tokens = ("pp", row["n_prompt"]) if row["n_prompt"] else ("tg", row["n_gen"])
            rows.setdefault((kind, tokens, row["n_depth"], 0), []).append(row)


def compare(args):
    """Rows of llama-bench's form by test, and peaks of memory, of each model and contender."""
    samples = {}
    everyone = contenders(args)
    for number in range(args.rounds):
        shift = number % len(everyone)
        for model in args.models:
            for name, command in everyone[shift:] + everyone[:shift]:
                print(f"round {number + 1} of {args.rounds}: {name}, {Path(model).name}", file=sys.stderr)
                rows, peaks = samples.setdefault((model, name), ({}, []))
                measure(command, model, args.tests, rows, peaks)
                time.sleep(args.pause)
    return samples


def summary(model, test, rows, peaks):
    """One line of the table. `rows` and `peaks` by contender."""
    speeds = {name: [row["avg_ts"] for row in all] for name, all in rows.items()}
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    peer = max((name for name in speeds if name != OURS), key=medians.get)
    # By round: what both met at the same time.
    ratios = [ours / theirs for ours, theirs in zip(speeds[OURS], speeds[peer])]
    known = [row for row in rows[OURS] if row.get("peak_fraction") is not None]
    return {
        "model": Path(model).name, "test": name_of(test), "ours": medians[OURS], "peer": medians[peer], "peer_name": peer,
        "ratio": medians[OURS] / medians[peer], "ratio_min": min(ratios), "ratio_max": max(ratios),
        "peak_fraction": statistics.median(row["peak_fraction"] for row in known) if known else None,
        "peak_of": known[0]["peak_of"] if known else None,
        "memory": {name: max(values) for name, values in peaks.items()},
        "medians": medians, "samples": speeds,
    }


def summaries(args, samples):
    names = [name for name, _ in contenders(args)]
    return [
        summary(model, test, {n: samples[model, n][0][test] for n in names}, {n: samples[model, n][1] for n in names})
        for model in args.models
        for test in args.tests
    ]


def machine():
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        fields = dict(re.split(r"\s*:\s*", line, maxsplit=1) for line in lines if ":" in line)
        cpu = f"{fields['model name']} (family {fields['cpu family']}, model {fields['model']})"
    except (OSError, KeyError):
        pass
    return f"{cpu}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def said(command):
    """The first line that a command prints, wherever it prints it."""
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    except OSError:
        return ""
    return ((process.stdout + process.stderr).splitlines() or [""])[0].strip()


def versions(args):
    ours = said([Path(args.ours).resolve(), "--version"])
    # Of the sources that this script lies in, which may be newer than the program.
    commit = said(["git", "describe", "--always", "--dirty", "--exclude", "*"])
    peer = said([Path(args.peer).resolve(), "--version"])
    return f"{ours}, commit {commit}".removesuffix(", commit "), peer.removeprefix("version: ")


def levels(samples):
    """The CPU's instructions that ours used."""
    rows = [row for (_, name), (tests, _) in samples.items() if name == OURS for all in tests.values() for row in all]
    return sorted({row["simd"] for row in rows if "simd" in row})


def spread(values):
    """`12.34 (12.01 – 12.50)`"""
    return f"{statistics.median(values):.2f} ({min(values):.2f} – {max(values):.2f})"


def markdown(report):
    lines = [
        f"{report['date']}, {report['machine']}, {report['threads']} threads, {report['rounds']} rounds, load {report['load']}.",
        f"{report['our_version']} ({', '.join(report['simd']) or 'best instructions'}) against {PEER} {report['peer_version']}.",
        "Tokens per second: median (least – most). The ratio is that of the medians, with the least and the most of a round. Memory is",
        "the peak of the whole process.",
        "",
        f"| model | test | {OURS} t/s | {PEER} t/s | its flags | ratio | by round | % of peak | MiB, ours / its |",
        "|---|---|---:|---:|---|---:|---|---:|---|",
    ]
    for row in report["rows"]:
        flags = row["peer_name"].removeprefix(PEER).strip() or "default"
        peak = "–" if row["peak_fraction"] is None else f"{100 * row['peak_fraction']:.0f} {row['peak_of']}"
        memory = " / ".join(f"{row['memory'][name] / 2**20:.0f}" for name in (OURS, row["peer_name"]))
        ours, peer = (spread(row["samples"][name]) for name in (OURS, row["peer_name"]))
        ratios = f"{row['ratio_min']:.2f} – {row['ratio_max']:.2f}"
        lines.append(f"| {row['model']} | {row['test']} | {ours} | {peer} | {flags} | **{row['ratio']:.2f}** | {ratios} | {peak} | {memory} |")
    return "\n".join([*lines, "", f"Command: `{report['command']}`", ""])


def main():
    args = arguments()
    # Where things lie on this machine is nobody's business.
    words = [Path(word).name if os.path.isabs(word) else word for word in sys.argv[1:]]
    before = os.getloadavg()[0]
    samples = compare(args)
    our_version, peer_version = versions(args)
    report = {
        "date": time.strftime("%Y-%m-%d"), "machine": machine(), "threads": args.threads, "rounds": args.rounds,
        "load": f"{before:.1f} before, {os.getloadavg()[0]:.1f} after", "our_version": our_version, "peer_version": peer_version,
        "command": shlex.join(["benches/compare.py", *words]), "rows": summaries(args, samples), "simd": levels(samples),
    }
    if args.out:
        Path(f"{args.out}.md").write_text(markdown(report))
        Path(f"{args.out}.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1) if args.json else markdown(report))


if __name__ == "__main__":
    main()
