#!/usr/bin/env python3
"""Takes llama.cpp's Vulkan kernels out of its library, for `kernel-stats --peer`.

    tools/kernel-stats/llama_cpp.py libggml-vulkan.so DIR

The library is libggml-vulkan.so of a build with symbols, the one in the npm package @node-llama-cpp/linux-x64-vulkan, for example. What a
file cannot say is written beside it: constants as ggml-vulkan.cpp chooses them for AMD cards since RDNA (rows of a workgroup), and how many
multiplications one turn of the main loop has, counted in the shaders' sources of October 2026 (K_PER_ITER of mul_mat_vec.comp and
mul_mat_vecq.comp, four turns unrolled; mul_mat_vec_q*_k.comp: 16 weights of a thread).
"""
import json
import pathlib
import subprocess
import sys

# Format: rows, weights of a row in one turn.
F32 = {
    "q4_0": (2, 32), "q8_0": (1, 32), "f16": (2, 16), "mxfp4": (4, 32), "iq4_xs": (4, 32),
    "q4_k": (2, 16), "q5_k": (2, 16), "q6_k": (2, 16),
}
INT8 = {
    "q4_0": (1, 32), "q8_0": (1, 32), "mxfp4": (2, 32), "iq4_xs": (1, 128), "q4_k": (1, 64), "q5_k": (1, 64), "q6_k": (1, 64),
}


def symbols(library: pathlib.Path) -> dict[str, tuple[int, int]]:
    """Addresses and sizes of the library's data, by name. In .rodata an address is the place in the file."""
    listed = subprocess.run(["nm", "-S", library], capture_output=True, text=True, check=True).stdout
    fields = (line.split() for line in listed.splitlines())
    return {f[3]: (int(f[0], 16), int(f[1], 16)) for f in fields if len(f) == 4}


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    library, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    data, known = library.read_bytes(), symbols(library)
    folder.mkdir(parents=True, exist_ok=True)
    for kind, activations, formats in (("f32", "f32", F32), ("int8", "q8_1", INT8)):
        for name, (rows, weights) in formats.items():
            symbol = f"mul_mat_vec_{name}_{activations}_f32_subgroup_no_shmem_data"
            if symbol not in known:
                sys.exit(f"{library} has no {symbol}: it was stripped, or is of another version")
            start, size = known[symbol]
            spirv = data[start : start + size]
            if spirv[:4] != b"\x03\x02\x23\x07":
                sys.exit(f"{library}: {symbol} is no SPIR-V")
            out = folder / f"mat-vec {kind} {name}.spv"
            out.write_bytes(spirv)
            beside = {"specialization": {"0": 64, "1": rows, "2": 1}, "subgroup": 64, "macs": rows * weights}
            out.with_suffix(".json").write_text(json.dumps(beside))
    print(f"kernel-stats --peer {folder}")


if __name__ == "__main__":
    main()
