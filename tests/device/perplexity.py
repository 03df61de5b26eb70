#!/usr/bin/env python3
"""The perplexity of Gemma3-270M over 2000 tokens: on the card within 0.5 % of the host.

    tests/device/perplexity.py make     where nvcc and the network are: build/device/perplexity/part0, part1, ...
    tests/device/perplexity.py check    where the card is; wants all parts

A machine with a card may have no network and take little at a time, so what travels is small: the linears as NVFP4, the embedding (which is the head
too) cut to the 4096 rows that the text needs and the commonest others, in parts of 32 MiB. Probabilities are then those among 4096 tokens; both sides
compute the same ones.
"""
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from tools import MODELS, compile_model, run  # noqa: E402

OUT = ROOT / "build" / "device" / "perplexity"
CHECKPOINT = ROOT / "build" / "models" / "gemma3-270m"
TEXTS = [ROOT / "ARCHITECTURE.md", ROOT / "STYLE.md"]
TOKENS, VOCAB, PART_BYTES, DIFFERENCE_MAX = 2000, 4096, 32 << 20, 0.005


def text_ids(work):
    """The texts' ids in the model's own vocabulary, the begin token first."""
    full = work / "full.ada"
    if not full.exists():
        compile_model(CHECKPOINT, full)
    line = json.dumps({"text": "".join(t.read_text() for t in TEXTS), "add_special": True}) + "\n"
    return json.loads(run("adallm-rt", "tokenize", full, "--jsonl", stdin=line).stdout)["ids"][:TOKENS]


def read_bf16(path):
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    for name, t in json.loads(data[8:begin]).items():
        at, end = t["data_offsets"]
        yield name, np.frombuffer(data[begin + at:begin + end], np.uint16).reshape(t["shape"])


def cut_checkpoint(ids, folder):
    """A checkpoint with VOCAB rows of the embedding; returns the ids as they are called there."""
    kept = list(dict.fromkeys([0, 1, 2, 3, *ids, *range(VOCAB)]))[:VOCAB]
    folder.mkdir()
    config = json.loads((CHECKPOINT / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": VOCAB}))
    tensors = dict(read_bf16(CHECKPOINT / "model.safetensors"))
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][kept]
    sys.path.insert(0, str(ROOT / "models"))
    from gemma3_270m import write_safetensors  # here, since it wants what a machine with a card may not have
    write_safetensors(folder / "model.safetensors", tensors.items())
    place = {old: new for new, old in enumerate(kept)}
    return [place[i] for i in ids]


def negative_log_likelihood(artifact, folder):
    """Of every token but the first, given those before it."""
    ids = np.array((OUT / "ids").read_text().split(), int)
    run("adallm-rt", "logits", artifact, "--ids", OUT / "ids", "-o", folder / "logits.npy")
    x = np.load(folder / "logits.npy").astype(np.float64)[:-1]
    x -= x.max(-1, keepdims=True)
    return np.log(np.exp(x).sum(-1)) - x[np.arange(len(x)), ids[1:]]


def make():
    work = OUT.parent / "perplexity.work"
    work.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    subprocess.run([sys.executable, ROOT / "models" / "gemma3_270m.py", CHECKPOINT], check=True)
    shutil.rmtree(work / "cut", ignore_errors=True)
    ids = cut_checkpoint(text_ids(work), work / "cut")
    (OUT / "ids").write_text(" ".join(map(str, ids)) + "\n")
    other = ["--set", f"tokenizer={MODELS / 'gemma3'}"]  # any will do: ids are given
    np.save(OUT / "host.npy", negative_log_likelihood(compile_model(work / "cut", work / "host.ada", *other), work))
    card = compile_model(work / "cut", work / "card.ada", "--target", "h100", *other).read_bytes()
    for i in range(0, len(card), PART_BYTES):
        (OUT / f"part{i // PART_BYTES}").write_bytes(card[i:i + PART_BYTES])
    print(f"{OUT}: {len(card) / 1e6:.1f} MB in parts; on the host {np.exp(np.load(OUT / 'host.npy').mean()):.4f}")


def check():
    host = np.load(OUT / "host.npy")
    parts = sorted(OUT.glob("part*"), key=lambda p: int(p.name[4:]))
    (OUT / "card.ada").write_bytes(b"".join(p.read_bytes() for p in parts))
    card = negative_log_likelihood(OUT / "card.ada", OUT)
    there, here = np.exp(host.mean()), np.exp(card.mean())
    print(f"FIGURE perplexity of {len(host)} tokens: {here:.4f}, on the host {there:.4f}: {100 * (here / there - 1):+.3f} %")
    sys.exit(0 if abs(here / there - 1) <= DIFFERENCE_MAX else 1)


{"make": make, "check": check}[sys.argv[1]]()
