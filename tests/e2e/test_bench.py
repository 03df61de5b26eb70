"""adallm-rt bench: a row for each batch, a plain read beside it, and refusals of what the artifact cannot do."""
import pytest

from tools import MODELS, compile_model, run


@pytest.fixture(scope="module")
def ada(tmp_path_factory):
    return compile_model(MODELS / "quantize", tmp_path_factory.mktemp("bench") / "x.ada")


def test_a_row_for_each_batch(ada):
    lines = run("adallm-rt", "bench", ada, "--batch", "1,3", "--prompt", 20, "--gen", 8).stdout.splitlines()
    assert "plain read" in lines[0] and "GB/s" in lines[0]
    rows = [line.split() for line in lines[3:]]
    assert [row[0] for row in rows] == ["1", "3"]
    assert all(float(row[i]) > 0 for row in rows for i in range(1, 6))


@pytest.mark.parametrize("options, code", [(["--batch", "17"], 2), (["--batch", "1,x"], 2), (["--batch", ""], 2), (["--gen", "1"], 2),
                                           (["--prompt", "5000"], 1)])
def test_refusals(ada, options, code):
    done = run("adallm-rt", "bench", ada, *options, code=code)
    assert "error E" in done.stderr and not done.stdout
