"""`adallmc eval` beyond the goldens (test_golden.py): the ids file, the context, random weights."""
import numpy as np
import pytest

from tools import MODELS, run

MODEL = MODELS / "qwen3"


@pytest.mark.parametrize("text, code, message", [
    ("1 2\n3 x\n", "E0801", "ids.txt:2:3: error E0801: `x` is not a token id"),
    ("1 672\n", "E0801", "token id 672 is outside the vocabulary: ids go from 0 to 671"),
    ("-1\n", "E0801", "negative"),
    ("\n \n", "E0801", "holds no token ids"),
    ("1 " * 9, "E0802", "this sequence has 9 ids, but the context holds 8"),
])
def test_bad_ids(tmp_path, text, code, message):
    ids, out = tmp_path / "ids.txt", tmp_path / "out.npy"
    ids.write_text(text)
    done = run("adallmc", "eval", MODEL, "--ids", ids, "-o", out, "--set", "context=8", code=1)
    assert code in done.stderr and message in done.stderr
    assert list(tmp_path.iterdir()) == [ids]


def test_usage(tmp_path):
    assert "needs --ids FILE" in run("adallmc", "eval", MODEL, "-o", tmp_path / "out.npy", code=2).stderr
    assert "--random-weights" in run("adallmc", "eval", "--help").stdout
    assert "E0902" in run("adallmc", "eval", MODEL, "--ids", tmp_path / "none", "-o", tmp_path / "out.npy", code=1).stderr


def test_a_sequence_does_not_see_the_others(tmp_path):
    (tmp_path / "both").write_text("5, 6, 7\n\n8 9\n")
    (tmp_path / "last").write_text("8 9")
    for name in ("both", "last"):
        run("adallmc", "eval", MODEL, "--ids", tmp_path / name, "-o", tmp_path / f"{name}.npy")
    both, last = np.load(tmp_path / "both.npy"), np.load(tmp_path / "last.npy")
    assert both.dtype == np.float32 and both.shape == (5, 672)
    assert np.array_equal(both[3:].view(np.uint32), last.view(np.uint32))


def test_random_weights_follow_the_seed(tmp_path):
    (tmp_path / "ids").write_text("1 2 3")

    def logits(seed):
        out = tmp_path / "out.npy"
        run("adallmc", "eval", MODEL, "--ids", tmp_path / "ids", "-o", out, "--random-weights", "--set", f"seed={seed}")
        return np.load(out)
    one, again, other = logits(1), logits(1), logits(2)
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    assert np.isfinite(one).all() and 0.1 < one.std() < 10
