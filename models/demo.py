#!/usr/bin/env python3
"""The demo: a real checkpoint -> adallmc -> adallm-rt -> text. Run by `./configure.py --setup demo`."""
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "build" / "models" / "gemma3-270m"
ARTIFACT = ROOT / "build" / "models" / "gemma3-270m.ada"
PROMPTS = ["The capital of France is", "Once upon a time, in a small village by the sea,"]


def run(*command):
    print("$", " ".join(str(c) if " " not in str(c) else f'"{c}"' for c in command), flush=True)
    subprocess.run([str(c) for c in command], check=True, cwd=ROOT)


def stale():
    """The artifact is made again when the compiler or the checkpoint is newer."""
    inputs = [ROOT / "build" / "adallmc", CHECKPOINT / "model.safetensors", CHECKPOINT / "config.json"]
    return not ARTIFACT.exists() or ARTIFACT.stat().st_mtime < max(p.stat().st_mtime for p in inputs)


def main():
    subprocess.run([sys.executable, ROOT / "models" / "gemma3_270m.py", CHECKPOINT], check=True)
    if stale():
        run("build/adallmc", "compile", CHECKPOINT.relative_to(ROOT), "-o", ARTIFACT.relative_to(ROOT))
    for prompt in PROMPTS:
        run("build/adallm-rt", "run", ARTIFACT.relative_to(ROOT), prompt, "--max-tokens", 48)


if __name__ == "__main__":
    main()
