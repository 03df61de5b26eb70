"""Compiling for cards that are not here: every fixture becomes a sound artifact, the same bytes each time, and fast the second time."""
import json
import os
import time

import pytest

from tools import MODELS, nvcc, run


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The environment of compilations that share a new cache."""
    return dict(os.environ, NVCC=nvcc(), XDG_CACHE_HOME=str(tmp_path_factory.mktemp("cache")))


def compile_for(card, model, out, cache, *arguments):
    run("adallmc", "compile", MODELS / model, "--target", card, "-o", out, *arguments, env=cache)
    return out


@pytest.mark.parametrize("model", ["qwen3", "gemma3", "qwen3-moe", "llama", "qwen2"])
def test_fixture_for_a_card(model, tmp_path, cache):
    ada = compile_for("rtx4090", model, tmp_path / "x.ada", cache)
    assert "sound" in run("adallm-rt", "verify", ada).stdout
    assert "rtx4090" in run("adallm-rt", "info", ada).stdout
    explained = json.loads(run("adallm-rt", "explain", "--json", ada).stdout)
    assert explained["target"]["sm"] == 89
    assert all(0 < k["registers"] <= 255 for k in explained["kernels"])
    begin = time.monotonic()
    again = compile_for("rtx4090", model, tmp_path / "y.ada", cache)
    assert time.monotonic() - begin <= 2
    assert again.read_bytes() == ada.read_bytes()


def test_w4a8_for_a_card(tmp_path, cache):
    """Products of NVFP4 weights read E4M3 rows, in every form; what reads other weights does not."""
    ada = compile_for("rtx4090", "qwen3-moe", tmp_path / "x.ada", cache, "--set", "gemm=w4a8")
    assert '"gemm": "w4a8"' in run("adallm-rt", "info", ada).stdout
    kernels = [k["name"] for k in json.loads(run("adallm-rt", "explain", "--json", ada).stdout)["kernels"] if not k["name"].startswith("chain")]
    products = [k for k in kernels if k.startswith(("linear", "moe_gate_up", "moe_down"))]
    assert any("quantize_rows" in k for k in kernels) and {k.split("_nvfp4")[0] for k in products if "nvfp4" in k} == {"linear", "moe_gate_up", "moe_down"}
    assert all(("e4m3" in k) == ("nvfp4" in k) for k in products), products


def test_what_is_emitted(tmp_path, cache):
    kept = tmp_path / "kept"
    kept.mkdir()
    one = compile_for("h100", "qwen2", tmp_path / "x.ada", cache, "--emit", kept)
    names = {p.stem for p in kept.glob("*.cu")}
    assert names and names == {p.stem for p in kept.glob("*.cubin")} == {p.stem for p in kept.glob("*.ptxas")}
    two = compile_for("h100", "qwen2", tmp_path / "y.ada", cache, "--no-cache")
    assert one.read_bytes() == two.read_bytes()


def test_no_cuda_compiler(tmp_path):
    env = dict(os.environ, NVCC="/nonexistent/nvcc")
    said = run("adallmc", "compile", MODELS / "llama", "--target", "l4", "-o", tmp_path / "x.ada", code=1, env=env).stderr
    assert "cannot run the CUDA compiler `/nonexistent/nvcc`" in said and "NVCC=" in said
    assert not (tmp_path / "x.ada").exists()
