"""Tokenizers and chat templates through the programs, against the goldens of tokenizers and transformers, line by line."""
import json
import pathlib
import tarfile

import pytest

from tools import MODELS, ROOT, compile_model, json_lines, run

TEXT = ROOT / "tests" / "golden" / "text"
CONFIGS = {"qwen3": {"base": "qwen3", "vocab_size": 151936}, "gemma3": {"base": "gemma3", "vocab_size": 262144}}


@pytest.fixture(scope="module", params=["qwen3", "gemma3"])
def artifact(request, tmp_path_factory):
    """A small random model with the real tokenizer and chat template."""
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    with tarfile.open(ROOT / "tests" / "golden" / "tokenizers" / f"{name}.tar.xz") as t:
        for member in t.getmembers():
            if member.isfile():
                (folder / pathlib.Path(member.name).name).write_bytes(t.extractfile(member).read())
    config = json.loads((MODELS / name / "config.json").read_text())
    config["vocab_size"] = CONFIGS[name]["vocab_size"]
    config["num_hidden_layers"] = 1
    config.pop("quantization_config", None)
    config.pop("layer_types", None)
    (folder / "config.json").write_text(json.dumps(config))
    return name, compile_model(folder, folder / "x.ada", "--random-weights")


def ask(verb, ada, questions):
    lines = "".join(json.dumps(q, ensure_ascii=False) + "\n" for q in questions)
    done = run("adallm-rt", verb, ada, "--jsonl", stdin=lines)
    answers = [json.loads(line) for line in done.stdout.split("\n") if line]
    assert len(answers) == len(questions)
    return answers


def test_encode_and_decode(artifact):
    name, ada = artifact
    cases = json_lines(TEXT / f"encode-{name}.jsonl.xz")
    keys = ("text", "special", "add_special")
    encoded = ask("tokenize", ada, [{k: c[k] for k in keys if k in c} for c in cases])
    decoded = ask("tokenize", ada, [{"ids": c["ids"]} for c in cases])
    for case, ids, text in zip(cases, encoded, decoded):
        assert ids.get("ids") == case["ids"], case["text"][:80]
        assert text.get("text") == case["decoded"], case["ids"][:40]


def test_chat(artifact):
    name, ada = artifact
    cases = json_lines(TEXT / f"chat-{name}.jsonl.xz")
    answers = ask("render", ada, [{k: c.get(k) for k in ("messages", "tools", "kwargs")} for c in cases])
    for case, answer in zip(cases, answers):
        if "error" in case:
            assert "error" in answer, case["messages"]
            if case["error_type"] == "TemplateError":
                assert answer["error"] == case["error"]
        else:
            assert answer.get("text") == case["text"], (case["messages"], answer)
            assert answer.get("ids") == case["safe_ids"]
