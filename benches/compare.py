#!/usr/bin/env python3
"""Runs wgpu-llm and llama.cpp alternately on the same files and prints ratios with medians and spread.

    benches/compare.py --llama-bench PATH -m a.gguf b.gguf --tests pp512 tg64 tg64@d4096 -t 2 --rounds 5

Each round runs every contender once on every model, each in a process of its own, and begins with another contender than the
round before: what drifts on the machine meets all of them alike. llama.cpp takes part once with each set of --peer-flags; of
its medians the better one counts.
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


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", default="target/release/wgpu-llm", metavar="PATH", help="the program wgpu-llm")
    parser.add_argument("--llama-bench", required=True, metavar="PATH", help="the program llama-bench")
    parser.add_argument("-m", "--models", nargs="+", required=True, metavar="FILE", help="GGUF files")
    parser.add_argument("--tests", nargs="+", default=["pp512", "tg64"], metavar="TEST", help="ppN, tgN, ppN@dDEPTH, tgN@dDEPTH")
    parser.add_argument("-t", "--threads", type=int, default=os.cpu_count(), metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="at least 5 for figures to be kept")
    parser.add_argument("--device", default="cpu", metavar="DEVICE", help="ours: cpu, gpu, gpu:N (default: cpu)")
    parser.add_argument("--our-flags", default="", metavar="FLAGS", help="more flags for ours")
    parser.add_argument("--peer-flags", nargs="+", default=["", "--repack 0"], metavar="FLAGS",
                        help="sets of flags for llama-bench; the better one counts (default: none, and --repack 0)")
    parser.add_argument("--pause", type=float, default=1.0, metavar="SECONDS", help="rest between runs")
    parser.add_argument("--out", metavar="STEM", help="write STEM.md and STEM.json too")
    parser.add_argument("--json", action="store_true", help="print JSON, with every sample")
    args = parser.parse_args()
    args.tests = [parse_test(parser, test) for test in args.tests]
    for path in [args.ours, args.llama_bench, *args.models]:
        if not Path(path).is_file():
            parser.error(f"there is no file {path}")
    return args


def parse_test(parser, text):
    """(name, kind, tokens, depth)"""
    match = re.fullmatch(r"(pp|tg)([1-9]\d*)(?:\s*@\s*d(\d+))?", text)
    if not match:
        parser.error(f"{text}: write a test as pp512, tg64 or tg64@d4096")
    kind, tokens, depth = match[1], int(match[2]), int(match[3] or 0)
    return (f"{kind}{tokens}" + (f" @ d{depth}" if depth else ""), kind, tokens, depth)


def contenders(args):
    """Name and command line up to the model, of everyone who takes part."""
    common = ["-t", str(args.threads), "-r", "1", "-o", "json"]
    ours = [args.ours, "bench", "--device", args.device, *shlex.split(args.our_flags), *common]
    peers = [(f"llama.cpp {flags}".strip(), [args.llama_bench, *common, *shlex.split(flags)]) for flags in args.peer_flags]
    return [(OURS, ours), *peers]


def run(command):
    """Standard output as JSON, and the process's peak memory in bytes."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        out = process.stdout.read()
        # Not Popen.wait: only wait4 tells the peak memory.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            log.seek(0)
            sys.exit(f"{shlex.join(command)} failed:\n{log.read().decode(errors='replace')}")
    return json.loads(out), usage.ru_maxrss * 1024


def measure(command, model, tests, results, memory):
    """Runs all tests of one contender on one model; a process for each depth, since flags are combined."""
    for depth in sorted({test[3] for test in tests}):
        sizes = {kind: [str(t[2]) for t in tests if t[1] == kind and t[3] == depth] for kind in ("pp", "tg")}
        flags = ["-m", model, "-p", ",".join(sizes["pp"]) or "0", "-n", ",".join(sizes["tg"]) or "0", "-d", str(depth)]
        rows, peak = run([*command, *flags])
        memory.append(peak)
        for row in rows:
            for name, kind, tokens, at in tests:
                wanted = (tokens, 0, at) if kind == "pp" else (0, tokens, at)
                if (row["n_prompt"], row["n_gen"], row["n_depth"]) == wanted:
                    results.setdefault(name, []).append(row)


def compare(args):
    samples = {}
    everyone = contenders(args)
    for number in range(args.rounds):
        shift = number % len(everyone)
        for model in args.models:
            for name, command in everyone[shift:] + everyone[:shift]:
                print(f"round {number + 1} of {args.rounds}: {name}, {Path(model).name}", file=sys.stderr)
                at = samples.setdefault((model, name), ({}, []))
                measure(command, model, args.tests, *at)
                time.sleep(args.pause)
    return [summary(args, model, test[0], samples) for model in args.models for test in args.tests]


def summary(args, model, test, samples):
    speeds = {name: [row["avg_ts"] for row in samples[model, name][0][test]] for name, _ in contenders(args)}
    peak = {name: max(samples[model, name][1]) for name in speeds}
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    peer = max((name for name in speeds if name != OURS), key=medians.get)
    # By round: what both met at the same time.
    ratios = [ours / theirs for ours, theirs in zip(speeds[OURS], speeds[peer])]
    ours = samples[model, OURS][0][test]
    fractions = [row["bandwidth_fraction"] for row in ours if row.get("bandwidth_fraction") is not None]
    return {
        "model": Path(model).name, "test": test, "ours": medians[OURS], "peer": medians[peer], "peer_name": peer,
        "ratio": medians[OURS] / medians[peer], "ratio_min": min(ratios), "ratio_max": max(ratios),
        "bandwidth_fraction": statistics.median(fractions) if fractions else None,
        "peak_bytes": peak, "samples": speeds,
    }


def machine():
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        fields = dict(re.split(r"\s*:\s*", line, maxsplit=1) for line in lines if ":" in line)
        cpu = f"{fields['model name']} (family {fields['cpu family']}, model {fields['model']})"
    except (OSError, KeyError):
        pass
    return f"{cpu}, {os.cpu_count()} cores"


def said(command):
    """The first line that a command prints, wherever it prints it."""
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    except OSError:
        return ""
    return ((process.stdout + process.stderr).splitlines() or [""])[0].strip()


def our_version(path):
    return f"{said([Path(path).resolve(), '--version'])} {said(['git', 'describe', '--always', '--dirty'])}".strip()


def markdown(report):
    lines = [
        f"{report['date']}, {report['machine']}, {report['threads']} threads, {report['rounds']} rounds, load {report['load']}.",
        f"{report['our_version']} against llama.cpp {report['peer_version']}. Tokens per second are medians; the ratio is theirs,",
        "with the least and the greatest ratio of a round. Peak memory is that of the whole process.",
        "",
        "| model | test | wgpu-llm t/s | llama.cpp t/s | its flags | ratio | by round | of bandwidth | peak MiB, ours / its |",
        "|---|---|---:|---:|---|---:|---|---:|---|",
    ]
    for row in report["rows"]:
        flags = row["peer_name"].removeprefix("llama.cpp").strip() or "default"
        share = "" if row["bandwidth_fraction"] is None else f"{100 * row['bandwidth_fraction']:.0f} %"
        memory = [row["peak_bytes"][name] / 2**20 for name in (OURS, row["peer_name"])]
        lines.append(
            f"| {row['model']} | {row['test']} | {row['ours']:.2f} | {row['peer']:.2f} | {flags} | **{row['ratio']:.2f}** | "
            f"{row['ratio_min']:.2f} – {row['ratio_max']:.2f} | {share} | {memory[0]:.0f} / {memory[1]:.0f} |"
        )
    return "\n".join([*lines, "", f"Command: `{report['command']}`", ""])


def main():
    args = arguments()
    # Where things lie on this machine is nobody's business.
    words = [Path(word).name if os.path.isabs(word) else word for word in sys.argv[1:]]
    command = shlex.join(["benches/compare.py", *words])
    load = os.getloadavg()[0]
    rows = compare(args)
    report = {
        "date": time.strftime("%Y-%m-%d"), "machine": machine(), "threads": args.threads, "rounds": args.rounds,
        "load": f"{load:.1f} before, {os.getloadavg()[0]:.1f} after", "our_version": our_version(args.ours),
        "peer_version": said([Path(args.llama_bench).resolve(), "--version"]).removeprefix("version: "), "command": command, "rows": rows,
    }
    if args.out:
        Path(f"{args.out}.md").write_text(markdown(report))
        Path(f"{args.out}.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1) if args.json else markdown(report))


if __name__ == "__main__":
    main()
