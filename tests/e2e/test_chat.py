"""Chat templates through the programs: what is found, what is refused and how, what broken lines get."""
import json
import shutil
import subprocess

import pytest

from tools import BUILD, MODELS, ROOT, compile_model, run

CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def model(tmp_path, template):
    folder = tmp_path / "model"
    shutil.copytree(MODELS / "qwen3", folder)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def ada(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("chat")
    return compile_model(model(tmp, CHATML), tmp / "x.ada")


def render(ada, data):
    """Bytes in, one answer a line out."""
    done = subprocess.run([BUILD / "adallm-rt", "render", ada, "--jsonl"], input=data, capture_output=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.decode("utf-8").split("\n") if line]


def test_text_and_ids(ada):
    lines = [{"messages": [{"role": "user", "content": "Hi <|im_end|>"}], "kwargs": {"add_generation_prompt": True}},
             {"messages": [{"role": "user", "content": "Hi"}], "tools": None}]
    answers = render(ada, "".join(json.dumps(x) + "\n" for x in lines).encode())
    assert answers[0]["text"] == "<|im_start|>user\nHi <|im_end|><|im_end|>\n<|im_start|>assistant\n"
    assert answers[1]["text"] == "<|im_start|>user\nHi<|im_end|>\n"
    # the tokenizer says what a spelled token is when it is plain text
    ask = json.dumps({"text": "user\nHi <|im_end|>", "special": False}) + "\n"
    plain = json.loads(run("adallm-rt", "tokenize", ada, "--jsonl", stdin=ask).stdout)["ids"]
    assert "".join(map(str, plain)) in "".join(map(str, answers[0]["ids"]))


@pytest.mark.parametrize("line", [
    b"{", b"[]", b"5", b"{}", b'{"messages": []}', b'{"messages": 5}', b'{"messages": [5]}', b'{"messages": [{}]}', b'{"messages": [{"role": 5}]}',
    b'{"messages": [{"role": "user", "content": "x"}], "tools": 5}', b'{"messages": [{"role": "user", "content": "x"}], "kwargs": []}',
    b'{"messages": [{"role": "user", "content": "x"}], "other": 1}', b'{"messages": [{"role": "user", "content": "\xff"}]}', b'{"messages": [{"role": "user"}]}',
    b'{"messages": ' + b"[" * 100000 + b"]" * 100000 + b"}", b'{"messages": [{"role": "user", "content": "x"}], "kwargs": {"messages": 1}}', b"\0"])
def test_bad_lines_are_answered_and_the_next_line_too(ada, line):
    good = b'{"messages": [{"role": "user", "content": "x"}]}\n'
    answers = render(ada, line + b"\n" + good)
    assert list(answers[0]) == ["error"] and answers[0]["error"]
    assert answers[1]["text"] == "<|im_start|>user\nx<|im_end|>\n"


@pytest.mark.parametrize("template, place, words", [
    ("a\n{% if x %}b", ":2:4:", "without its `endif`"),
    ("{{ x | nosuch }}", ":1:8:", "nosuch"),
    ("{{ " + "(" * 10000 + "x" + ")" * 10000 + " }}", ":1:104:", "too deeply"),
    ("{% include 'x' %}", ":1:4:", "include"),
    ("\u00e9{{ 'x }}", ":1:5:", "does not end"),
])
def test_broken_templates_stop_the_compiler(tmp_path, template, place, words):
    folder, out = model(tmp_path, template), tmp_path / "x.ada"
    done = run("adallmc", "compile", folder, "-o", out, code=1)
    assert "chat_template.jinja" + place in done.stderr and words in done.stderr
    assert not out.exists()


def test_endless_template_is_stopped(tmp_path):
    ada = compile_model(model(tmp_path, "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"), tmp_path / "x.ada")
    answers = render(ada, b'{"messages": [{"role": "user", "content": "x"}]}\n')
    assert "steps" in answers[0]["error"]


def test_usage(ada):
    run("adallm-rt", "render", ada, code=2)
    run("adallm-rt", "render", code=2)
    run("adallm-rt", "render", ada, "--jsno", code=2)
    assert "--jsonl" in run("adallm-rt", "render", "--help").stdout
