"""adallm-rt tokenize: what each kind of line gets, good and bad, and how the program ends."""
import json
import subprocess
import unicodedata

import pytest

from tools import BUILD, MODELS, compile_model, run

GOOD = [
    ({"text": "Hello, w\u00f6rld! <|im_end|>"}, "ids"),
    ({"text": "Hello <|im_end|>", "special": False, "add_special": True}, "ids"),
    ({"text": ""}, "ids"),
    ({"text": "e\u0301\u0000\u2028\U0001F600"}, "ids"),
    ({"ids": []}, "text"),
    ({"ids": [0, 1, 2], "skip_special": True}, "text"),
    ({"ids": [4000000000]}, "text"),  # no token: vanishes
]
BAD = ['{"text": 5}', '{"ids": "x"}', '{"ids": [-1]}', '{"ids": [1.5]}', '{"ids": [99999999999999999999]}', '{"ids": [null]}', "{}", "[]", "",
       "null", "{", '{"text": "a"', '{"text": "a", "special": 1}', '{"ids": [1], "skip_special": "no"}', '{"text": "a"} {"text": "b"}',
       "[" * 5000]


@pytest.fixture(scope="module", params=["qwen3", "gemma3"])
def model(request, tmp_path_factory):
    return request.param, compile_model(MODELS / request.param, tmp_path_factory.mktemp("tok") / "x.ada")


@pytest.fixture
def artifact(model):
    return model[1]


def answers(ada, lines, code):
    done = run("adallm-rt", "tokenize", ada, "--jsonl", stdin="".join(line + "\n" for line in lines), code=code)
    return [json.loads(line) for line in done.stdout.split("\n")[:-1]]


def test_good_lines(model):
    name, artifact = model
    got = answers(artifact, [json.dumps(q) for q, _ in GOOD], 0)
    assert [list(a) for a in got] == [[key] for _, key in GOOD]
    back = answers(artifact, [json.dumps({"ids": got[3]["ids"]})], 0)[0]["text"]
    assert back == (unicodedata.normalize("NFC", GOOD[3][0]["text"]) if name == "qwen3" else GOOD[3][0]["text"])


def test_bad_lines_do_not_stop_the_others(artifact):
    good = json.dumps(GOOD[0][0])
    lines = [x for bad in BAD for x in (bad, good)]
    got = answers(artifact, lines, 1)
    assert len(got) == len(lines)
    assert all(list(a) == ["error"] and a["error"] for a in got[::2])
    assert all(a == got[1] and a["ids"] for a in got[1::2])


def test_bytes_that_are_no_utf8(artifact):
    done = subprocess.run([BUILD / "adallm-rt", "tokenize", artifact, "--jsonl"], input=b'{"text": "\xff"}\n', capture_output=True, timeout=60)
    assert done.returncode == 1 and "error" in json.loads(done.stdout)


def test_usage(artifact):
    run("adallm-rt", "tokenize", artifact, code=2)
    run("adallm-rt", "tokenize", code=2)
    run("adallm-rt", "tokenize", artifact, "--jsonl", "--spezial", code=2)
    run("adallm-rt", "tokenize", "no such file.ada", "--jsonl", code=1)
    assert "usage" in run("adallm-rt", "tokenize", "--help").stdout
