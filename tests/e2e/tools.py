"""What the end-to-end tests share: the two programs, the goldens, and how answers are compared."""
import json
import lzma
import os
import pathlib
import subprocess

import numpy as np
from safetensors.numpy import load_file

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
MODELS = ROOT / "tests" / "golden" / "models"
NAMES = ["qwen3", "qwen3-ct", "qwen3-moe", "gemma3", "gemma3-ct", "quantize", "llama", "qwen2"]
# What tests/device takes to a card: fixture and options of the compilation.
CARRIED = {name: (name, ()) for name in NAMES} | {f"{name}-w4a8": (name, ("--set", "gemm=w4a8")) for name in ("qwen3", "qwen3-moe", "gemma3")}
BUILD = pathlib.Path(os.environ.get("ADALLM_BUILD", ROOT / "build"))


def nvcc():
    """The CUDA compiler that ./configure.py found."""
    lines = (ROOT / "build.local.ninja").read_text().splitlines()
    return next((line.split(" = ", 1)[1] for line in lines if line.startswith("nvcc = ")), "nvcc")


def run(program, *arguments, code=0, stdin=None, **options):
    """Run one of the programs; check its exit code; return the finished process (text mode)."""
    command = [str(BUILD / program), *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, cwd=ROOT, timeout=600, **options)
    assert done.returncode == code, f"{' '.join(command)}\nexit {done.returncode}, expected {code}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


def compile_model(model, out, *arguments):
    run("adallmc", "compile", model, "-o", out, *arguments)
    return out


def goldens(name):
    """[(ids, logits.fp32, logits.fp8kv)] of a fixture."""
    t = load_file(MODELS / name / "golden.safetensors")
    count = 1 + max(int(k.split(".")[0]) for k in t)
    return [(t[f"{i}.ids"], t[f"{i}.logits.fp32"], t[f"{i}.logits.fp8kv"]) for i in range(count)]


def write_ids(path, sequences):
    path.write_text("".join(" ".join(map(str, ids)) + "\n" for ids in sequences))
    return path


def relative_error(got, want):
    return float(np.linalg.norm(got.astype(np.float64) - want) / np.linalg.norm(want.astype(np.float64)))


def mean_kl(want, got):
    """Mean over positions of KL(softmax(want) || softmax(got))."""
    def log_softmax(x):
        x = x.astype(np.float64) - x.max(-1, keepdims=True)
        return x - np.log(np.exp(x).sum(-1, keepdims=True))
    p, q = log_softmax(want), log_softmax(got)
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def json_lines(path):
    """Of a file as it is, or packed (.xz)."""
    text = (lzma.open(path).read() if path.suffix == ".xz" else path.read_bytes()).decode()
    return [json.loads(line) for line in text.split("\n") if line]
