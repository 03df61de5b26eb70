"""`gemm: w4a8` on the host target: the plan against the evaluator that quantises as well, and against the plan of w4a16."""
import numpy as np
import pytest

from tools import MODELS, NAMES, compile_model, goldens, mean_kl, relative_error, run, write_ids

# A sum that differs in its last bit may round to the next E4M3 value, 6 % away: what the random weights of the fixtures make of it.
PLAN_ERROR_MAX, PLAN_KL_MAX = 0.1, 0.03
# What quantised activations cost on the fixtures.
COST_ERROR_MAX, COST_KL_MAX = 0.16, 0.08
MOE_FACTOR = 2.5  # a router that flips moves the logits of its token
DIVIDES = ("qwen3", "qwen3-moe", "gemma3")


@pytest.fixture(scope="module", params=NAMES)
def case(request, tmp_path_factory):
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    ids = write_ids(folder / "ids.txt", [g[0] for g in goldens(name)])
    compile_model(MODELS / name, folder / "w4a16.ada")
    return name, folder, ids, compile_model(MODELS / name, folder / "w4a8.ada", "--set", "gemm=w4a8")


def logits(ada, ids, *options):
    out = ada.with_suffix(".npy")
    run("adallm-rt", "logits", ada, "--ids", ids, "-o", out, *options)
    return np.load(out)


def check(name, what, got, want, error_max, kl_max):
    error, kl, factor = relative_error(got, want), mean_kl(want, got), MOE_FACTOR if "moe" in name else 1
    print(f"{name}: {what}: relative error {error:.4f}, mean KL {kl:.2e}")
    assert error <= factor * error_max and kl <= factor * kl_max
    return error


def test_plan_is_what_the_evaluator_says(case):
    name, folder, ids, ada = case
    run("adallmc", "eval", MODELS / name, "--set", "gemm=w4a8", "--kv-fp8", "--ids", ids, "-o", folder / "eval.npy")
    check(name, "plan against evaluator", logits(ada, ids), np.load(folder / "eval.npy"), PLAN_ERROR_MAX, PLAN_KL_MAX)


def test_cost_of_quantised_activations(case):
    name, folder, ids, ada = case
    assert check(name, "w4a8 against w4a16", logits(ada, ids), logits(folder / "w4a16.ada", ids), COST_ERROR_MAX, COST_KL_MAX) > 0.01


def test_batch_and_chunks_change_no_bit(case):
    _, _, ids, ada = case
    alone = logits(ada, ids, "--batch", 1)
    for batch, chunk in ((3, 7), (1, 1), (8, 64)):
        other = logits(ada, ids, "--batch", batch, "--chunk", chunk)
        assert np.array_equal(alone.view(np.uint32), other.view(np.uint32)), f"batch {batch}, chunk {chunk}"


def test_ranks_quantise_their_shares(case):
    name, folder, ids, ada = case
    if name not in DIVIDES:
        pytest.skip("one fixture of each kind that divides")
    two = compile_model(MODELS / name, folder / "tp2.ada", "--set", "gemm=w4a8", "--set", "tensor_parallel=2")
    check(name, "2 ranks against 1", logits(two, ids), logits(ada, ids), COST_ERROR_MAX, COST_KL_MAX)


def test_info_and_selftest(case):
    _, _, _, ada = case
    assert '"gemm": "w4a8"' in run("adallm-rt", "info", ada).stdout
    run("adallm-rt", "selftest", ada)


def test_weights_are_those_of_w4a16(case):
    """The choice changes kernels and plans: the bytes of the weights are the same."""
    _, folder, _, ada = case

    def weights(a):
        return [line.split() for line in run("adallm-rt", "info", a).stdout.splitlines() if line.startswith("weights ")]
    assert weights(ada) and [w[2:] for w in weights(ada)] == [w[2:] for w in weights(folder / "w4a16.ada")]
