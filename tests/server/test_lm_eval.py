"""lm-eval, unchanged, with the server's tokenizer: runs where `pip install lm_eval[api]` was done beside pytest."""
import json
import os
import pathlib
import subprocess
import sys

import pytest

LM_EVAL = pathlib.Path(sys.executable).parent / "lm_eval"
CHOICE = """task: tiny_choice
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: ["yes", "no", "perhaps"]
doc_to_target: 0
metric_list: [{metric: acc}]
"""
GENERATE = """task: tiny_generate
output_type: generate_until
doc_to_text: "{{q}}"
doc_to_target: "yes"
generation_kwargs: {until: ["\\n"], max_gen_toks: 12, temperature: 0}
metric_list: [{metric: exact_match}]
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "data.jsonl").write_text("".join(json.dumps({"q": f"Is {i} even? "}) + "\n" for i in range(6)))
    source = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder}/data.jsonl}}}}\ntest_split: test\n"
    (folder / "choice.yaml").write_text(source + CHOICE)
    (folder / "generate.yaml").write_text(source + GENERATE)
    return folder


@pytest.mark.skipif(not LM_EVAL.exists(), reason="lm_eval is not installed")
@pytest.mark.parametrize("model, route, task, more", [
    ("local-completions", "completions", "tiny_choice", []), ("local-completions", "completions", "tiny_generate", []),
    ("local-chat-completions", "chat/completions", "tiny_generate", ["--apply_chat_template"])])
def test_runs(server, tasks, model, route, task, more):
    where = f"model=qwen3,base_url={server.url}/v1/{route},num_concurrent=2" + (",tokenizer_backend=remote" if model == "local-completions" else "")
    done = subprocess.run([LM_EVAL, "--model", model, "--tasks", task, "--model_args", where, "--include_path", tasks, "--output_path", tasks / "out", *more],
                          capture_output=True, text=True, timeout=200, env=dict(os.environ, HF_DATASETS_OFFLINE="1", HF_HUB_OFFLINE="1"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert task in done.stdout and "|" in done.stdout
