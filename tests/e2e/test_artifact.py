"""One artifact through the verbs of adallm-rt: what they print, what they refuse, and that `run` says what `logits` says."""
import hashlib
import json
import random
import re
import signal
import struct
import subprocess
import time

import numpy as np
import pytest

from tools import BUILD, MODELS, compile_model, goldens, run, write_ids

ASAN = "asan/" if (BUILD / "asan" / "adallm-rt").exists() else ""
CONTEXT = 96
MIB = 1 << 20


@pytest.fixture(scope="module")
def ada(tmp_path_factory):
    return compile_model(MODELS / "gemma3-ct", tmp_path_factory.mktemp("ada") / "x.ada", "--set", f"context={CONTEXT}")


def sections(data):
    """[(kind, row offset, offset, bytes)]"""
    n = struct.unpack_from("<I", data, 48)[0]
    rows = [struct.unpack_from("<IIQQ", data, 4096 + 64 * i) for i in range(n)]
    return [(kind, 4096 + 64 * i, at, size) for i, (kind, _, at, size) in enumerate(rows)]


def seal(data):
    """Make all hashes match again."""
    for kind, row, at, size in sections(data):
        if kind not in (8, 9):
            data[row + 32:row + 64] = hashlib.sha256(data[at:at + size]).digest()
    at, size = sections(data)[-1][2:]
    leaves = b"".join(hashlib.sha256(data[i:min(i + MIB, at)]).digest() for i in range(4096, at, MIB))
    assert len(leaves) == size
    data[at:at + size] = leaves
    root = 8 + 4 + 4 + 16 + 16 + 4 * 4 + 32 + 64 + 32
    data[root:root + 32] = hashlib.sha256(leaves).digest()
    data[4064:4096] = bytes(32)
    data[4064:4096] = hashlib.sha256(data[:4096]).digest()


def find(data, wanted):
    return next((at, size) for kind, _, at, size in sections(data) if kind == wanted)


def test_sealing_is_what_the_compiler_does(ada):
    data = bytearray(ada.read_bytes())
    before = bytes(data)
    seal(data)
    assert data == before


def test_info(ada):
    text = run(ASAN + "adallm-rt", "info", ada).stdout
    for word in ("gemma3-ct", "host", "weights", "merkle root", "kv", str(ada.stat().st_size)):
        assert word in text
    manifest = json.loads(run(ASAN + "adallm-rt", "info", ada, "--json").stdout)
    assert manifest["context"] == CONTEXT and manifest["tensor_parallel"] == 1 and manifest["eos_ids"]
    assert len(manifest["inputs"]["config.json"]) == 64


def test_explain(ada):
    text = run(ASAN + "adallm-rt", "explain", ada).stdout
    for word in ("scratch over time", "linear_", "attention", "predicted", "KV group 1", "considered and not taken"):
        assert word in text
    json.loads(run(ASAN + "adallm-rt", "explain", ada, "--json").stdout)


def test_damaged_weights_serve_nobody(ada, tmp_path):
    """They are hashed while the device takes the weights: every verb that runs waits for the answer."""
    data, bad = bytearray(ada.read_bytes()), tmp_path / "bad.ada"
    at, size = find(data, 8)
    data[at + size // 2] ^= 1
    bad.write_bytes(data)
    leaf = f"leaf {(at + size // 2 - 4096) // MIB} (offset"
    ids = write_ids(tmp_path / "ids.txt", [[1, 2, 3]])
    for words in (["run", bad, "Hello"], ["logits", bad, "--ids", ids, "-o", tmp_path / "x.npy"], ["selftest", bad], ["bench", bad, "--prompt", 8, "--gen", 4],
                  ["verify", bad]):
        done = run(ASAN + "adallm-rt", *words, code=1)
        assert leaf in done.stderr and str(bad) in done.stderr and not done.stdout
    assert not (tmp_path / "x.npy").exists()


def test_doctor(ada, tmp_path):
    text = run(ASAN + "adallm-rt", "doctor").stdout
    assert "host " in text and "cores" in text and "CUDA " in text
    text = run(ASAN + "adallm-rt", "doctor", ada).stdout
    assert "needs " in text and "KV cache of one sequence of 96 tokens" in text and "it would run here" in text
    short = run(ASAN + "adallm-rt", "doctor", ada, "--kv-cache-memory", 1000, code=1)
    assert "would not run" in short.stdout and "one sequence takes" in short.stderr


def test_doctor_names_what_no_card_here_runs(ada, tmp_path):
    data, other = bytearray(ada.read_bytes()), tmp_path / "other.ada"
    data[60:64] = struct.pack("<I", 12)  # no such card
    seal(data)
    other.write_bytes(data)
    done = run(ASAN + "adallm-rt", "doctor", other, code=1)
    assert "would not run" in done.stdout and re.search("no NVIDIA driver|too old|finds no GPU|compile the model for this card", done.stderr)


def test_verify_says_what_it_checked(ada):
    text = run(ASAN + "adallm-rt", "verify", ada).stdout
    for word in ("hashes", "plan", "tokenizer and chat program", "sound"):
        assert word in text


def test_selftest_sees_wrong_weights(ada, tmp_path):
    assert "relative error" in run(ASAN + "adallm-rt", "selftest", ada).stdout
    data = bytearray(ada.read_bytes())
    at, size = find(data, 8)
    for i in range(at, at + size // 2, 2):  # the low bytes of bf16, scales and codes
        data[i] ^= 0x35
    seal(data)
    (tmp_path / "y.ada").write_bytes(data)
    run("adallm-rt", "verify", tmp_path / "y.ada")
    done = run("adallm-rt", "selftest", tmp_path / "y.ada", code=1)
    assert "E080" in done.stderr


def test_a_sealed_plan_that_lies_does_no_harm(ada, tmp_path):
    """Numbers of the plan replaced, hashes right again: refused, or harmless."""
    sound = ada.read_bytes()
    at, size = find(sound, 2)
    rng = random.Random(5)
    refused = 0
    for i in range(60):
        data = bytearray(sound)
        place = at + 4 * (i if i < 40 else rng.randrange(size // 4))
        struct.pack_into("<I", data, place, rng.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, rng.getrandbits(32)]))
        seal(data)
        (tmp_path / "y.ada").write_bytes(data)
        done = subprocess.run([BUILD / (ASAN + "adallm-rt"), "verify", tmp_path / "y.ada"], capture_output=True, text=True)
        assert done.returncode in (0, 1), done.stderr
        refused += done.returncode
        if done.returncode:
            assert "error E07" in done.stderr
    assert refused > 20


# ---- run -------------------------------------------------------------------------------------------------------------
def greedy(ada, prompt_ids, n, folder):
    """What `run` must say, from logits alone; rows of the table that are no token are never drawn."""
    vocab = json.loads(run("adallm-rt", "info", ada, "--json").stdout)["vocab"]
    ids = list(prompt_ids)
    for _ in range(n):
        run("adallm-rt", "logits", ada, "--ids", write_ids(folder / "ids.txt", [ids]), "-o", folder / "l.npy")
        ids.append(int(np.load(folder / "l.npy")[-1, :vocab].argmax()))
    return ids[len(prompt_ids):]


def tokenize(ada, question):
    return json.loads(run("adallm-rt", "tokenize", ada, "--jsonl", stdin=json.dumps(question) + "\n").stdout)


def test_run_says_what_logits_say(ada, tmp_path):
    prompt = "the quick brown"
    ids = tokenize(ada, {"text": prompt, "add_special": True})["ids"]
    want = tokenize(ada, {"ids": greedy(ada, ids, 12, tmp_path), "skip_special": True})["text"]
    done = run("adallm-rt", "run", ada, prompt, "--no-chat", "--ignore-eos", "--temperature", 0, "--max-tokens", 12)
    assert done.stdout.rstrip("\n") == want.rstrip("\n")
    assert f"prompt {len(ids)} tokens" in done.stderr and "generated 12 tokens" in done.stderr and "tokens/s" in done.stderr


def test_sampling_repeats_by_seed(ada):
    def once(*more):
        return run("adallm-rt", "run", ada, "abc", "--no-chat", "--ignore-eos", "--max-tokens", 20, "--temperature", 1.5, *more).stdout
    assert once("--seed", 5) == once("--seed", 5, "--threads", 1)
    assert len({once("--seed", i) for i in range(4)}) > 1
    assert once("--top-k", 1) == once("--top-p", 0) == once("--temperature", 0)


def test_prompt_longer_than_the_context(ada):
    done = run(ASAN + "adallm-rt", "run", ada, "word " * 200, "--no-chat", code=1)
    assert "E0802" in done.stderr and str(CONTEXT) in done.stderr and not done.stdout


def test_the_context_ends_a_run(ada):
    done = run(ASAN + "adallm-rt", "run", ada, "a b c", "--no-chat", "--ignore-eos", "--max-tokens", 100000)
    prompt = int(done.stderr.split("[prompt ")[1].split()[0])
    assert f"generated {CONTEXT - prompt} tokens" in done.stderr


@pytest.mark.parametrize("chat", ["--chat", "--no-chat"])
def test_conversation(ada, chat):
    done = run(ASAN + "adallm-rt", "run", ada, chat, "--max-tokens", 4, stdin="hi\n\nyou\n\\q\nnever read\n")
    assert done.stderr.count("[prompt") == 2
    assert run(ASAN + "adallm-rt", "run", ada, chat, "--max-tokens", 3, stdin="hi").stderr.count("[prompt") == 1
    assert not run(ASAN + "adallm-rt", "run", ada, chat, stdin="").stdout


def test_refusals(ada, tmp_path):
    assert "E0101" in run(ASAN + "adallm-rt", "run", ada, "x", "--no-chat", "--system", "y", code=2).stderr
    assert "E0101" in run(ASAN + "adallm-rt", "run", ada, "x", "--chat", "--no-chat", code=2).stderr
    assert "E0506" in run(ASAN + "adallm-rt", "run", ada, "\udcff\udcfe", "--no-chat", code=1).stderr
    ids = write_ids(tmp_path / "ids.txt", [goldens("gemma3-ct")[0][0][:5]])
    done = run(ASAN + "adallm-rt", "logits", ada, "--ids", ids, "-o", tmp_path / "o.npy", "--batch", 17, code=2)
    assert "at most 16" in done.stderr
    done = run(ASAN + "adallm-rt", "logits", ada, "--ids", ids, "-o", "/dev/null", code=1)
    assert "no regular file" in done.stderr


def test_an_interrupt_ends_the_answer(ada):
    with subprocess.Popen([BUILD / "adallm-rt", "run", ada, "--no-chat", "--ignore-eos", "--temperature", "1", "--max-tokens", "90"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as p:
        p.stdin.write("go\n")
        p.stdin.flush()
        p.stdout.read(1)  # an answer has begun, or ended
        p.send_signal(signal.SIGINT)
        time.sleep(0.2)
        p.stdin.close()
        assert p.wait(20) == 0
        assert "[prompt" in p.stderr.read()
