"""The three witnesses against transformers: the fp32 evaluator, and the plan run on the host target, for every fixture."""
import numpy as np
import pytest

from tools import MODELS, NAMES, compile_model, goldens, mean_kl, relative_error, run, write_ids

EVAL_ERROR_MAX = 1e-5   # against logits.fp32
PLAN_ERROR_MAX = 0.03   # against logits.fp8kv
MOE_ERROR_MAX = 0.15    # a router flips now and then
PLAN_KL_MAX = 1e-3


@pytest.fixture(scope="module", params=NAMES)
def case(request, tmp_path_factory):
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    ids = write_ids(folder / "ids.txt", [g[0] for g in goldens(name)])
    return name, folder, ids, compile_model(MODELS / name, folder / "x.ada")


def check_plan(name, got, want):
    error, kl = relative_error(got, want), mean_kl(want, got)
    print(f"{name}: relative error {error:.4f}, mean KL {kl:.2e}")
    if "moe" in name:
        assert error <= MOE_ERROR_MAX
    else:
        assert error <= PLAN_ERROR_MAX and kl <= PLAN_KL_MAX


def test_eval_is_the_truth_of_the_graph(case):
    name, folder, ids, _ = case
    run("adallmc", "eval", MODELS / name, "--ids", ids, "-o", folder / "eval.npy")
    want = np.concatenate([g[1] for g in goldens(name)])
    error = relative_error(np.load(folder / "eval.npy"), want)
    print(f"{name}: eval relative error {error:.2e}")
    assert error <= EVAL_ERROR_MAX


def test_host_plan_is_the_truth_of_the_plan(case):
    name, folder, ids, ada = case
    run("adallm-rt", "logits", ada, "--ids", ids, "-o", folder / "host.npy")
    check_plan(name, np.load(folder / "host.npy"), np.concatenate([g[2] for g in goldens(name)]))


def test_batch_and_chunks_change_no_bit(case):
    name, folder, ids, ada = case
    run("adallm-rt", "logits", ada, "--ids", ids, "-o", folder / "alone.npy", "--batch", 1)
    alone = np.load(folder / "alone.npy")
    for batch, chunk in ((2, 64), (3, 7), (1, 1), (1, 7), (8, 64), (4, 1)):
        run("adallm-rt", "logits", ada, "--ids", ids, "-o", folder / "other.npy", "--batch", batch, "--chunk", chunk)
        other = np.load(folder / "other.npy")
        assert np.array_equal(alone.view(np.uint32), other.view(np.uint32)), f"batch {batch}, chunk {chunk}"


@pytest.mark.parametrize("ranks", [2, 4])
def test_tensor_parallel_gives_the_same_logits(case, ranks):
    name, folder, ids, _ = case
    if (name, ranks) in DOES_NOT_DIVIDE:
        done = run("adallmc", "compile", MODELS / name, "-o", folder / "no.ada", "--set", f"tensor_parallel={ranks}", code=1)
        assert "E0603" in done.stderr and str(ranks) in done.stderr
        assert not (folder / "no.ada").exists()
        return
    ada = compile_model(MODELS / name, folder / f"tp{ranks}.ada", "--set", f"tensor_parallel={ranks}")
    run("adallm-rt", "logits", ada, "--ids", ids, "-o", folder / "tp.npy")
    check_plan(name, np.load(folder / "tp.npy"), np.concatenate([g[2] for g in goldens(name)]))


# heads, or slices of 16 along K, that the ranks cannot share evenly
DOES_NOT_DIVIDE = {(name, ranks) for name in ("quantize", "llama", "qwen2") for ranks in (2, 4)}


def test_verify_and_selftest(case):
    _, _, _, ada = case
    run("adallm-rt", "verify", ada)
    run("adallm-rt", "selftest", ada)


def test_equal_inputs_give_equal_files(case):
    name, folder, _, ada = case
    again = compile_model(MODELS / name, folder / "again.ada")
    assert again.read_bytes() == ada.read_bytes()
