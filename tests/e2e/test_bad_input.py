"""What bad input gets: one located sentence, exit code 1 or 2, no output file, no crash. Runs the sanitizer builds."""
import json
import random
import re
import shutil
import struct
import subprocess

import numpy as np
import pytest

from tools import BUILD, MODELS, compile_model, goldens, run, write_ids

ASAN = "asan/" if (BUILD / "asan" / "adallmc").exists() else ""


def load_header(path):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + size]), data[8 + size:]


def store(path, header, body):
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        if value is ...:
            config.pop(key, None)
        else:
            config[key] = value
    (folder / "config.json").write_text(json.dumps(config, indent=2))


def edit_header(change):
    def apply(folder):
        path = folder / "model.safetensors"
        header, body = load_header(path)
        changed = change(header)
        store(path, header if changed is None else changed, body)
    return apply


def edit_json(name, change):
    def apply(folder):
        j = json.loads((folder / name).read_text())
        change(j)
        (folder / name).write_text(json.dumps(j, indent=1))
    return apply


def poke(tensor, dtype, index, value):
    """Overwrite one element of a tensor."""
    def apply(folder):
        path = folder / "model.safetensors"
        header, body = load_header(path)
        body = bytearray(body)
        at = header[tensor]["data_offsets"][0] + index * np.dtype(dtype).itemsize
        body[at:at + np.dtype(dtype).itemsize] = np.array([value], dtype).tobytes()
        store(path, header, bytes(body))
    return apply


def cut(name, keep):
    def apply(folder):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[:keep if keep >= 0 else len(data) + keep])
    return apply


Q = "model.layers.0.self_attn.q_proj."
FAULTS = {
    # safetensors
    "empty file": (cut("model.safetensors", 0), "E0401"),
    "cut header": (cut("model.safetensors", 100), "E0401"),
    "cut data": (cut("model.safetensors", -1), "E0401"),
    "header length lies": (lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 2**63) + b"{}"), "E0401"),
    "header is not JSON": (edit_header(lambda h: "{" + "x" * 64), "E0[34]01"),
    "offsets overlap": (edit_header(lambda h: h[Q + "weight"].update(data_offsets=[0, h[Q + "weight"]["data_offsets"][1]])), "E0401"),
    "shape overflows": (edit_header(lambda h: h[Q + "weight"].update(shape=[2**40, 2**40])), "E0401"),
    "shape lies": (edit_header(lambda h: h[Q + "weight"].update(shape=[1, 1])), "E0401"),
    "negative shape": (edit_header(lambda h: h[Q + "weight"].update(shape=[-1, 4])), "E0401"),
    "unknown dtype": (edit_header(lambda h: h[Q + "weight"].update(dtype="F7")), "E0401"),
    "float offsets": (edit_header(lambda h: h[Q + "weight"].update(data_offsets=[0.5, 1])), "E0401"),
    "tensor missing": (lambda f: rename(f, Q + "weight_scale", "nobody.wants.this"), "E040[34]"),
    "NaN block scale": (poke(Q + "weight_scale", np.uint8, 5, 0x7F), "E0405"),
    "negative block scale": (poke(Q + "weight_scale", np.uint8, 5, 0xB0), "E0405"),
    "NaN global scale": (poke(Q + "weight_scale_2", np.float32, 0, np.nan), "E0405"),
    "zero global scale": (poke(Q + "weight_scale_2", np.float32, 0, 0), "E0405"),
    "NaN in a norm": (poke("model.norm.weight", np.uint16, 3, 0x7FC0), "E0405"),
    "infinity in the embedding": (poke("model.embed_tokens.weight", np.uint16, 9, 0x7F80), "E0405"),
    # config.json
    "config missing": (lambda f: (f / "config.json").unlink(), "E0902|E030"),
    "config cut": (cut("config.json", 50), "E0301"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "E030"),
    "unknown model": (lambda f: edit_config(f, model_type="mamba", architectures=["MambaForCausalLM"]), "E0304"),
    "zero layers": (lambda f: edit_config(f, num_hidden_layers=0), "E0303"),
    "negative heads": (lambda f: edit_config(f, num_attention_heads=-2), "E0303"),
    "absurd hidden": (lambda f: edit_config(f, hidden_size=2**62), "E0303"),
    "hidden as string": (lambda f: edit_config(f, hidden_size="128"), "E0303"),
    "heads do not divide": (lambda f: edit_config(f, num_attention_heads=3, num_key_value_heads=2), "E0303"),
    "missing hidden": (lambda f: edit_config(f, hidden_size=...), "E0302|E0404|E0303"),
    "unknown activation": (lambda f: edit_config(f, hidden_act="swish_deluxe"), "E0304"),
    "unknown rope": (lambda f: edit_config(f, rope_scaling={"rope_type": "longrope", "factor": 2}), "E0304"),
    "rope factor zero": (lambda f: edit_config(f, rope_scaling={"rope_type": "linear", "factor": 0}), "E0303"),
    "more layers than tensors": (lambda f: edit_config(f, num_hidden_layers=3, layer_types=...), "E0403"),
    "wrong vocabulary": (lambda f: edit_config(f, vocab_size=700), "E0404|E0303"),
    "unknown quantisation": (edit_json("config.json", lambda j: j["quantization_config"].update(quant_algo="INT3_FANCY", quant_method="fancy")),
                             "E0406"),
    # tokenizer
    "tokenizer missing": (lambda f: (f / "tokenizer.json").unlink(), "E0902|E0501"),
    "tokenizer cut": (cut("tokenizer.json", 1000), "E0301|E0501"),
    "tokenizer of another kind": (edit_json("tokenizer.json", lambda j: j["model"].update(type="Unigram")), "E0502"),
    "negative id": (edit_json("tokenizer.json", lambda j: j["model"]["vocab"].update({"a": -1})), "E0501"),
    "duplicate id": (edit_json("tokenizer.json", lambda j: j["model"]["vocab"].update({"a": 5, "b": 5})), "E0501"),
    "huge id": (edit_json("tokenizer.json", lambda j: j["model"]["vocab"].update({"a": 2**40})), "E0501"),
    "merge of unknown tokens": (edit_json("tokenizer.json", lambda j: j["model"]["merges"].insert(0, ["\u0900\u0901", "\u0902"])), "E0501"),
    # template
    "broken template": (edit_json("tokenizer_config.json", lambda j: j.update(chat_template="{% if x %}never closed")), "E0503"),
    "unknown filter": (edit_json("tokenizer_config.json", lambda j: j.update(chat_template="{{ messages | frobnicate }}")), "E0504"),
}


def rename(folder, old, new):
    path = folder / "model.safetensors"
    header, body = load_header(path)
    header[new] = header.pop(old)
    store(path, header, body)


@pytest.fixture
def folder(tmp_path):
    target = tmp_path / "model"
    shutil.copytree(MODELS / "quantize", target, ignore=shutil.ignore_patterns("bf16", "golden*"))
    return target


@pytest.mark.parametrize("fault", FAULTS)
def test_broken_checkpoint(folder, fault):
    break_it, expected = FAULTS[fault]
    break_it(folder)
    done = run(ASAN + "adallmc", "compile", folder, "-o", folder / "x.ada", code=1)
    assert re.search(expected, done.stderr), done.stderr
    assert not list(folder.glob("x.ada*"))


@pytest.fixture(scope="module")
def ada(tmp_path_factory):
    return compile_model(MODELS / "quantize", tmp_path_factory.mktemp("ada") / "x.ada")


def test_artifact_flipped_anywhere(ada, tmp_path):
    data = bytearray(ada.read_bytes())
    rng = random.Random(1)
    places = [0, 8, 12, 40, 4095, 4096, len(data) - 1] + [rng.randrange(len(data)) for _ in range(60)]
    for at in places:
        data[at] ^= 1 << rng.randrange(8)
        (tmp_path / "y.ada").write_bytes(data)
        done = run(ASAN + "adallm-rt", "verify", tmp_path / "y.ada", code=1)
        assert "E070" in done.stderr, (at, done.stderr)
        data = bytearray(ada.read_bytes())


def test_artifact_cut_anywhere(ada, tmp_path):
    data = ada.read_bytes()
    rng = random.Random(2)
    for keep in [0, 1, 4095, 4096, 5000, len(data) - 1] + [rng.randrange(len(data)) for _ in range(20)]:
        (tmp_path / "y.ada").write_bytes(data[:keep])
        for verb in ("verify", "info"):
            run(ASAN + "adallm-rt", verb, tmp_path / "y.ada", code=1)


@pytest.mark.parametrize("text, code", [("1 2 x\n", 1), ("1 -2\n", 1), ("1 99999999999999999999\n", 1), ("700\n", 1), ("1.5\n", 1), ("", 1),
                                        (" ".join(["1"] * 5000) + "\n", 1)])
def test_bad_ids(ada, tmp_path, text, code):
    (tmp_path / "ids.txt").write_text(text)
    run(ASAN + "adallm-rt", "logits", ada, "--ids", tmp_path / "ids.txt", "-o", tmp_path / "o.npy", code=code)
    run(ASAN + "adallmc", "eval", MODELS / "quantize", "--ids", tmp_path / "ids.txt", "-o", tmp_path / "o.npy", code=code)
    assert not (tmp_path / "o.npy").exists()


def test_full_disk(ada, tmp_path):
    ids = write_ids(tmp_path / "ids.txt", [goldens("quantize")[0][0]])
    run("adallm-rt", "logits", ada, "--ids", ids, "-o", "/dev/full", code=1)
    run("adallmc", "compile", MODELS / "quantize", "-o", tmp_path / "no" / "such" / "x.ada", code=1)


@pytest.mark.parametrize("where", [">/dev/full", ">&-"])
@pytest.mark.parametrize("verb", ["info A", "explain A", "run A hi --max-tokens 2", "version", "--help", "info --help"])
def test_stdout_that_takes_nothing(ada, verb, where):
    command = f"{BUILD}/{ASAN}adallm-rt {verb.replace('A', str(ada))} {where}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "E0902" in done.stderr, done.stderr


def test_output_is_checked_before_the_work(tmp_path):
    for out in ("", tmp_path, "/dev/null", tmp_path / "no" / "x.ada"):
        done = run(ASAN + "adallmc", "compile", MODELS / "quantize", "-o", out, code=1)
        assert "E0902" in done.stderr and " plan " not in done.stderr, done.stderr


def test_text_that_is_not_utf8(ada):
    for arguments in (["--chat"], ["--no-chat"], ["--chat", "--system", b"\xff"]):
        command = [BUILD / (ASAN + "adallm-rt"), "run", ada, b"a\xffb", *arguments]
        done = subprocess.run(command, capture_output=True, timeout=60)
        assert done.returncode == 1 and b"byte 0xFF at offset" in done.stderr, done.stderr


def test_full_disk_for_real(tmp_path):
    """A file size limit makes writes fail half-way, as a full disk does."""
    import resource
    out = tmp_path / "x.ada"
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    run("adallmc", "compile", MODELS / "quantize", "-o", out, code=1, preexec_fn=limit, env={"PATH": "/usr/bin:/bin", "TMPDIR": "/tmp"})
    assert not list(tmp_path.glob("x.ada*"))


@pytest.mark.parametrize("command", [
    ["adallmc"], ["adallmc", "comple"], ["adallmc", "compile"], ["adallmc", "compile", "x"], ["adallmc", "compile", "x", "-o"],
    ["adallmc", "compile", "x", "-o", "y", "--tagret", "host"], ["adallmc", "eval", "x"], ["adallm-rt"], ["adallm-rt", "rum", "x"],
    ["adallm-rt", "run"], ["adallm-rt", "logits", "x", "--batch", "none"], ["adallm-rt", "logits", "x", "--batch", "0"],
    ["adallm-rt", "run", "x", "hi", "--temperature", "hot"], ["adallm-rt", "info", "a", "b"]])
def test_wrong_usage(command):
    done = run(ASAN + command[0], *command[1:], code=2)
    assert done.stderr and not done.stdout


def test_missing_files(tmp_path):
    for verb in ("info", "verify", "selftest", "explain"):
        done = run(ASAN + "adallm-rt", verb, tmp_path / "none.ada", code=1)
        assert "none.ada" in done.stderr
    run(ASAN + "adallmc", "compile", tmp_path / "none", "-o", tmp_path / "x.ada", code=1)
    run(ASAN + "adallmc", "compile", tmp_path / "none.yaml", "-o", tmp_path / "x.ada", code=1)
