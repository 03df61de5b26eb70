"""EleutherAI's lm-eval against the server, as people run it: a choice by likelihood, perplexity, and generation until a stop; completions
with its tokenizer here, and chat."""
import json
import math
import os
import subprocess
import sys

import pytest

LINES = [{"q": "Once upon a", "a": " time", "b": " king", "gold": 0}, {"q": "The cat sat on", "a": " the mat", "b": " it", "gold": 1}, {"q": "One two", "a": " three", "b": " 3", "gold": 0}]
TASKS = {
    "choice": {"output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_choice": "{{[a, b]}}", "doc_to_target": "gold", "target_delimiter": "",
               "metric_list": [{"metric": "acc"}]},
    "rolling": {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{q}}{{a}}", "metric_list": [{"metric": "word_perplexity"}, {"metric": "byte_perplexity"}]},
    "until": {"output_type": "generate_until", "doc_to_text": "{{q}}", "doc_to_target": "{{a}}", "metric_list": [{"metric": "exact_match"}],
              "generation_kwargs": {"until": ["\n\n", "."], "max_gen_toks": 8, "temperature": 0}},
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "lines.json").write_text("\n".join(map(json.dumps, LINES)))
    for name, task in TASKS.items():
        task = {"task": f"small_{name}", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / "lines.json")}}, "test_split": "test", **task}
        (folder / f"{name}.yaml").write_text(json.dumps(task))  # JSON is YAML
    return folder


def lm_eval(tasks, names, model, arguments, *more):
    out = tasks / f"out-{model}-{len(list(tasks.glob('out-*')))}"
    command = [sys.executable, "-m", "lm_eval", "run", "--model", model, "--model_args", ",".join(f"{k}={v}" for k, v in arguments.items()),
               "--tasks", ",".join(f"small_{n}" for n in names), "--include_path", str(tasks), "--output_path", str(out), "--log_samples", *more]
    env = dict(os.environ, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HOME=str(tasks / "hf"), OPENAI_API_KEY="none")
    r = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
    assert r.returncode == 0, r.stderr[-4000:]
    results = json.loads(next(out.rglob("results_*.json")).read_text())["results"]
    samples = {n: [json.loads(line) for line in next(out.rglob(f"samples_small_{n}_*.jsonl")).read_text().splitlines()] for n in names}
    return results, samples


def likelihood(server, context, continuation):
    """Of a continuation, from the log probabilities of an echo."""
    first = server.call("/tokenize", {"prompt": context, "add_special_tokens": False})[1]["count"]
    body = {"prompt": context + continuation, "max_tokens": 0, "echo": True, "logprobs": 1, "temperature": 0}
    return sum(server.call("/v1/completions", body)[1]["choices"][0]["logprobs"]["token_logprobs"][first:])


def test_completions(server, tasks):
    arguments = {"model": "qwen3", "base_url": server.url + "/v1/completions", "tokenizer_backend": "remote", "tokenized_requests": "False", "num_concurrent": 4, "max_retries": 1}
    results, samples = lm_eval(tasks, list(TASKS), "local-completions", arguments)
    assert 0 <= results["small_choice"]["acc,none"] <= 1
    for s in samples["choice"]:
        told, asked = [float(r[0][0]) for r in s["resps"]], list(s["arguments"].values())
        assert [a["arg_1"] for a in asked] == [s["doc"]["a"], s["doc"]["b"]]
        assert told == pytest.approx([likelihood(server, a["arg_0"], a["arg_1"]) for a in asked], abs=2e-3)
    assert math.isfinite(results["small_rolling"]["byte_perplexity,none"]) and results["small_rolling"]["byte_perplexity,none"] > 1
    for s in samples["until"]:
        body = {"prompt": s["doc"]["q"], "max_tokens": 8, "temperature": 0, "stop": ["\n\n", "."]}
        assert s["resps"][0][0] == server.call("/v1/completions", body)[1]["choices"][0]["text"]


def test_chat(server, tasks):
    arguments = {"model": "qwen3", "base_url": server.url + "/v1/chat/completions", "num_concurrent": 2, "max_retries": 1}
    _, samples = lm_eval(tasks, ["until"], "local-chat-completions", arguments, "--apply_chat_template")
    for s in samples["until"]:
        body = {"messages": [{"role": "user", "content": s["doc"]["q"]}], "max_tokens": 8, "temperature": 0, "stop": ["\n\n", "."]}
        assert s["resps"][0][0] == server.call("/v1/chat/completions", body)[1]["choices"][0]["message"]["content"]
