#!/usr/bin/env python3
"""Estimates from benches/results/kernels-radv.json how near to their memory's speed graphics cards can come with one token's products.

    benches/cards.py > benches/results/cards-model.md

No card is measured: instructions and loads are counted by AMD's compiler for RDNA2, for other makers' cards as a stand-in, and the times are a
model, which the page that comes out explains.
"""

import json
import math
from pathlib import Path

RECORD = Path(__file__).parent / "results" / "kernels-radv.json"
FAMILY = "rdna2"
# Bits of a weight as they lie on the device.
BITS = {"q4_0": 4.5, "q4_k": 4.5, "q5_k": 5.5, "q6_k": 6.5625, "q8_0": 8.5, "f16": 16, "mxfp4": 4.25, "iq4_xs": 4.25}
WORKGROUP = 64
# Rows of a workgroup, of the kernels that come first.
ROWS = {"f32": 4, "bytes": 2}
LAUNCH, LATENCY = 2.0, 0.8


class Card:
    """Units of 64 or 128 lanes, their clock in GHz, the memory's GB/s, and how many threads a unit holds with so many registers each."""

    def __init__(self, name, units, lanes, clock, memory, threads, dot4=True):
        self.name, self.units, self.lanes, self.clock = name, units, lanes, clock
        self.memory, self.threads, self.dot4 = memory, threads, dot4
        self.rate = units * lanes * clock * 1e3  # vector instructions of a lane in a microsecond

    def resident(self, kernel):
        return self.units * self.threads(kernel)


def amd(kernel):
    """Two SIMDs of a unit, with the waves that the compiler reports."""
    return 2 * kernel["waves"] * 64


def nvidia(kernel):
    return min(2048, 65536 // kernel["vgprs"] // 64 * 64)


def apple(kernel):
    return min(1024, 53248 // kernel["vgprs"] // 32 * 32)


CARDS = [
    Card("RX 6900 XT", 80, 64, 2.25, 512, amd),
    Card("RX 7900 XTX", 96, 64, 2.5, 960, amd),
    Card("Steam Deck", 8, 64, 1.6, 88, amd),
    Card("M3 (10 cores)", 10, 128, 1.4, 100, apple, dot4=False),
    Card("RTX 4090", 128, 128, 2.52, 1008, nvidia),
    Card("H200", 132, 128, 1.83, 4800, nvidia),
]


def kernels():
    """The first kernel of each format and form, by name of its columns."""
    record = json.loads(RECORD.read_text())
    found = {}
    for group in record["families"][FAMILY].values():
        for name, row in group.items():
            for form, prefix in (("f32", "matmul_vec "), ("bytes", "matmul_vec int8 ")):
                for dtype in BITS:
                    if name.startswith(f"{prefix}{dtype} 4096x4096 x1 "):
                        found.setdefault((dtype, form), dict(zip(record["columns"], row)))
    return record["driver"], found


def needed(card, kernel, bits):
    """Vector instructions that weights need as fast as memory gives them, in parts of what there is."""
    weights = card.memory * 1e3 / (bits / 8)
    return weights * kernel["vector"] / kernel["macs"] / card.rate


def time(card, kernel, bits, form, rows, k):
    """Microseconds of a product with rows × k weights."""
    bytes_all = rows * k * bits / 8
    loads = sum(kernel[f"load{n}"] * n for n in (1, 2, 4, 8, 12, 16))
    weights = kernel["macs"] * bits / 8
    lane = weights * min(1.0, kernel["flight_bytes"] / loads)
    lanes = min(math.ceil(rows / ROWS[form]) * WORKGROUP, card.resident(kernel))
    rounds = math.ceil(bytes_all / (lanes * lane))
    vector = rows * k * kernel["vector"] / kernel["macs"] / card.rate
    return LAUNCH + max(bytes_all / (card.memory * 1e3), rounds * LATENCY + vector)


def cell(card, found, dtype, form, rows, k):
    kernel = found.get((dtype, form))
    if kernel is None or form == "bytes" and not card.dot4:
        return "–"
    took = time(card, kernel, BITS[dtype], form, rows, k)
    return f"{took:.1f} ({rows * k * BITS[dtype] / 8 / took / card.memory / 10:.0f})"


def main():
    driver, found = kernels()
    print(f"""# What cards could make of the kernels: a model

Made by `benches/cards.py` from `kernels-radv.json` ({driver}, {FAMILY}). **Nothing here was measured on a card.** Instructions and loads are those that
AMD's compiler emits for RDNA2; they stand in for other makers' compilers, which are not known. The model: a product takes {LAUNCH:.0f} µs for its launch and
its last wave, and then the longer of two: its bytes at the memory's full speed, or as many round trips of {LATENCY} µs as its loads in flight need, and
all its vector instructions after them. In flight are the weights that a thread loads before it waits, of as many threads as there are or as the card
holds. There are no caches in it, no clocks that fall, and nothing is issued twice a cycle. With activations in bytes, the pass that rounds
them is left out: one more launch for each norm.

The cards, by their makers' figures: {"; ".join(f"{c.name}: {c.units} units of {c.lanes} lanes at {c.clock} GHz, {c.memory} GB/s" for c in CARDS)}.
Threads that a unit holds are by registers: AMD's as the compiler reports, NVIDIA's 2048 and Apple's 1024 at the most.

## Vector instructions needed at the memory's full speed, per cent of what the card has

Above 100 memory has to wait for arithmetic. In f32, and with activations in bytes, for which Metal has no instruction. With the kernels of commit
621cbc9 (7.47 instructions for a weight, kernels-radv-peer.md), Q4_0 needed 59, 83,
143, 74, 32 and 206 on these cards, by the same count.

| |{"|".join(f" {c.name} " for c in CARDS)}|
|---|{"---:|" * len(CARDS)}""")
    for dtype, bits in BITS.items():
        cells = []
        for card in CARDS:
            both = [found.get((dtype, form)) for form in ("f32", "bytes")]
            shown = [f"{100 * needed(card, k, bits):.0f}" if k else "–" for k in both]
            cells.append(shown[0] if not card.dot4 else " / ".join(shown))
        print(f"| {dtype.upper()} |{'|'.join(f' {c} ' for c in cells)}|")
    for rows, k in ((2048, 2048), (4096, 4096), (28672, 4096)):
        print(f"""
## {rows} × {k}: microseconds, and per cent of the memory's speed

| | |{"|".join(f" {c.name} " for c in CARDS)}|
|---|---|{"---:|" * len(CARDS)}""")
        for dtype in BITS:
            for form in ("f32", "bytes"):
                if (dtype, form) in found:
                    cells = (cell(card, found, dtype, form, rows, k) for card in CARDS)
                    print(f"| {dtype.upper()} | {form} |{'|'.join(f' {c} ' for c in cells)}|")


if __name__ == "__main__":
    main()
