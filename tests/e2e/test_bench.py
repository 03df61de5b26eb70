"""adallm-rt bench: a row for each batch, a plain read beside it, and refusals of what the artifact cannot do."""
import json

import pytest

from tools import MODELS, compile_model, run


@pytest.fixture(scope="module")
def ada(tmp_path_factory):
    return compile_model(MODELS / "quantize", tmp_path_factory.mktemp("bench") / "x.ada")


def test_a_row_for_each_batch(ada):
    lines = run("adallm-rt", "bench", ada, "--batch", "1,3", "--prompt", 20, "--gen", 8).stdout.splitlines()
    assert "plain read" in lines[0] and "GB/s" in lines[0]
    assert lines[1].startswith("memory, MiB: weights") and "KV pool" in lines[1] and lines[2].startswith("start, ms: ")
    rows = [line.split() for line in lines[5:]]
    assert [row[0] for row in rows] == ["1", "3"]
    assert all(float(row[i]) > 0 for row in rows for i in range(1, 6))


def test_json_has_all_of_it(ada):
    done = run("adallm-rt", "bench", ada, "--batch", "2", "--prompt", 20, "--gen", 8, "--launches", 2, "--chunk", 5, "--json")
    told = json.loads(done.stdout)
    assert told["target"] == "host" and told["memory"]["weights"] > 0 and told["start_ms"]["open"] > 0
    assert [row["batch"] for row in told["rows"]] == [2] and told["rows"][0]["p50_ms"] <= told["rows"][0]["p99_ms"]
    for launches in told["launches"], told["chunk_launches"]:
        kernels = launches["kernels"]
        assert {k["program"] for k in kernels} == {"body", "head", "sample"}
        assert all(k["measured_us"] > 0 and k["count"] > 0 for k in kernels) and launches["step_us"] > 0
        assert sum(k["measured_us"] * k["count"] for k in kernels) == pytest.approx(launches["sum_us"], rel=1e-3)


def test_launches_as_a_table(ada):
    out = run("adallm-rt", "bench", ada, "--prompt", 20, "--gen", 8, "--launches", 2, "--chunk", 5).stdout
    assert "launches of a decode step of 2" in out and "launches that compute 5 tokens of a prompt" in out
    assert out.count("median error of the predictions") == 2


@pytest.mark.parametrize("options, code", [(["--batch", "17"], 2), (["--batch", "1,x"], 2), (["--batch", ""], 2), (["--gen", "1"], 2), (["--launches", "17"], 2), (["--chunk", "5000"], 2),
                                           (["--prompt", "5000"], 1), (["--kv-cache-dtype", "fp16"], 2)])
def test_refusals(ada, options, code):
    done = run("adallm-rt", "bench", ada, *options, code=code)
    assert "error E" in done.stderr and not done.stdout
