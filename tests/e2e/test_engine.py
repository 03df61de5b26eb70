"""What a request gets depends on itself alone: ids and bits of logprobs, alone and in every mix, on the host target."""
import pytest

from tools import MODELS, NAMES, compile_model, run


@pytest.mark.parametrize("name", NAMES)
def test_a_request_gets_what_it_gets_alone(name, tmp_path):
    ada = compile_model(MODELS / name, tmp_path / "x.ada", "--set", "context=192", "--set", "chunk=64")
    done = run("release/tests/engine_mix", ada)
    print(done.stdout)
    assert "preemptions" in done.stdout
