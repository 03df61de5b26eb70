"""`adallmc quantize`: ModelOpt's bytes, files that other readers open, odd but legal input, nothing left behind on failure."""
import json
import resource
import shutil
import struct

import numpy as np
import pytest
from safetensors import safe_open

from tools import BUILD, MODELS, run

BF16 = MODELS / "quantize" / "bf16"
ASAN = "asan/" if (BUILD / "asan" / "adallmc").exists() else ""
E2M1 = np.array([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6], np.float64)
Q = "model.layers.0.self_attn.q_proj.weight"


def tensors(path):
    """{name: (dtype, shape, bytes)} of a file, or of all weights of a folder."""
    out = {}
    for file in sorted(path.glob("model*.safetensors")) if path.is_dir() else [path]:
        data = file.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8:8 + size])
        header.pop("__metadata__", None)
        for name, t in header.items():
            a, b = t["data_offsets"]
            assert name not in out
            out[name] = (t["dtype"], t["shape"], data[8 + size + a:8 + size + b])
    return out


def store(path, contents, metadata=None, pad=""):
    header, body = {"__metadata__": metadata} if metadata else {}, b""
    for name, (dtype, shape, data) in contents.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode() + pad.encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def bf16(x):
    u = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((u + 0x7FFF + (u >> 16 & 1)) >> 16).astype(np.uint16).tobytes()


def from_bf16(data):
    return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)


def e4m3(data):
    b = np.frombuffer(data, np.uint8).astype(np.int64)
    e, m = b >> 3 & 15, b & 7
    return np.where(e > 0, (1 + m / 8) * 2.0 ** (e - 7), m * 2.0 ** -9)


def dequantised(t, name):
    n, half = t[name][1]
    packed = np.frombuffer(t[name][2], np.uint8).reshape(n, half)
    codes = np.stack([packed & 15, packed >> 4], -1).reshape(n, half * 2)
    scales = e4m3(t[name + "_scale"][2]).reshape(n, half // 8).repeat(16, 1)
    return E2M1[codes] * scales * np.frombuffer(t[name + "_scale_2"][2], np.float32)[0]


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "bf16"
    shutil.copytree(BF16, folder)
    return folder


def test_modelopts_bytes(tmp_path):
    out = tmp_path / "out"
    run(ASAN + "adallmc", "quantize", BF16, "-o", out)
    want = {k: v for k, v in tensors(MODELS / "quantize").items() if not k.endswith("input_scale")}
    got = tensors(out)
    assert got.keys() == want.keys()
    assert all(got[k] == want[k] for k in want)
    with safe_open(out / "model.safetensors", "np") as f:
        assert f.metadata() == {"format": "pt"} and set(f.keys()) == set(want)
    config = json.loads((out / "config.json").read_text())
    quant = config.pop("quantization_config")
    assert config == json.loads((BF16 / "config.json").read_text())
    assert quant["quant_method"] == "modelopt" and quant["quant_algo"] == "W4A16_NVFP4"
    assert "input_activations" not in quant["config_groups"]["group_0"]
    exported = json.loads((MODELS / "quantize" / "hf_quant_config.json").read_text())["quantization"]
    ours = json.loads((out / "hf_quant_config.json").read_text())["quantization"]
    assert quant["ignore"] == ours["exclude_modules"] == exported["exclude_modules"]
    assert ours["group_size"] == 16 and ours["kv_cache_quant_algo"] is None
    assert (out / "generation_config.json").read_bytes() == (BF16 / "generation_config.json").read_bytes()


def test_mse_is_better_and_reported(tmp_path):
    errors = {}
    for method in ("max", "mse"):
        done = run(ASAN + "adallmc", "quantize", BF16, "-o", tmp_path / method, "--method", method, "--report")
        t, plain = tensors(tmp_path / method), tensors(BF16)
        square = error = 0
        for name in t:
            if name + "_scale" not in t:
                continue
            w = from_bf16(plain[name][2]).astype(np.float64).reshape(plain[name][1])
            square += (w ** 2).sum()
            error += ((w - dequantised(t, name)) ** 2).sum()
        errors[method] = (error / square) ** 0.5
    reported = done.stdout.split("\nall ")[1].split()
    assert abs(float(reported[0]) - errors["max"]) < 2e-5 and abs(float(reported[1]) - errors["mse"]) < 2e-5
    assert errors["mse"] < 0.9 * errors["max"]


def test_mse_is_the_full_sweep(tmp_path):
    run(ASAN + "adallmc", "quantize", BF16, "-o", tmp_path / "mse", "--method", "mse")
    t, plain = tensors(tmp_path / "mse"), tensors(BF16)
    w = from_bf16(plain[Q][2]).astype(np.float64).reshape(-1, 16)[:200]
    g = np.frombuffer(t[Q + "_scale_2"][2], np.float32)[0]
    scales = e4m3(np.arange(1, 127, dtype=np.uint8).tobytes()) * g
    y = np.abs(w)[:, None, :] / scales[None, :, None]
    q = E2M1[:8][np.abs(y[..., None] - E2M1[:8]).argmin(-1)]
    errors = ((y - q) ** 2).sum(-1) * scales ** 2
    chosen = np.frombuffer(t[Q + "_scale"][2], np.uint8)[:200].astype(int) - 1
    assert np.all(errors[np.arange(200), chosen] <= errors.min(1) * (1 + 1e-5))


def test_shards(source, tmp_path):
    big = tensors(source)
    big["model.layers.2.mlp.up_proj.weight"] = ("BF16", [4096, 512], bf16(np.random.default_rng(0).normal(size=4096 * 512)))
    store(source / "model.safetensors", big)
    run(ASAN + "adallmc", "quantize", source, "-o", tmp_path / "one")
    run(ASAN + "adallmc", "quantize", source, "-o", tmp_path / "many", "--shard-mb", 1)
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    one, many = tensors(tmp_path / "one"), tensors(tmp_path / "many")
    assert one == many and set(index["weight_map"]) == set(one)
    assert index["metadata"]["total_size"] == sum(len(t[2]) for t in one.values())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 1 and all(f == f"model-{i + 1:05}-of-{len(files):05}.safetensors" for i, f in enumerate(files))
    for name, file in index["weight_map"].items():
        assert name in tensors(tmp_path / "many" / file)


def test_other_dtypes_and_layouts(source, tmp_path):
    """Unaligned data, metadata, zero-size and rank-0 tensors, fp16 and fp32 weights, a multimodal prefix, a vision tower."""
    rng = np.random.default_rng(1)
    w = rng.normal(size=(16, 48)).astype(np.float32)
    p = "language_model.model.layers.0."
    store(source / "model.safetensors", {
        "scalar": ("U8", [], b"x"), "empty": ("F32", [0, 4], b""), "odd": ("U8", [3], b"abc"),
        p + "mlp.up_proj.weight": ("F16", [16, 48], w.astype(np.float16).tobytes()),
        p + "mlp.gate_proj.weight": ("F32", [16, 48], w.tobytes()),
        p + "mlp.down_proj.weight": ("BF16", [48, 8], bf16(w[:8])),  # rows of 8: no whole block
        p + "input_layernorm.weight": ("F32", [48], w[0].tobytes()),
        "language_model.model.embed_tokens.weight": ("BF16", [16, 48], bf16(w)),
        "vision_tower.patch.weight": ("BF16", [2, 3, 2, 2], bf16(w[:1, :24])),
    }, metadata={"a": "b"}, pad=" \n ")
    done = run(ASAN + "adallmc", "quantize", source, "-o", tmp_path / "out")
    assert "1 vision tensors" in done.stdout
    t = tensors(tmp_path / "out")
    assert t["scalar"] == ("U8", [], b"x") and t["empty"] == ("F32", [0, 4], b"") and t["odd"][2] == b"abc"
    up, gate = p + "mlp.up_proj.weight", p + "mlp.gate_proj.weight"
    assert t[up][:2] == t[gate][:2] == ("U8", [16, 24]) and t[up + "_scale"][:2] == ("F8_E4M3", [16, 3])
    assert t[up + "_scale_2"] == t[gate + "_scale_2"]  # siblings share their amax
    assert np.frombuffer(t[up + "_scale_2"][2], np.float32)[0] == max(np.abs(w).max(), np.float32(np.abs(w.astype(np.float16)).max())) / np.float32(2688)
    for name in (up, gate):
        assert np.linalg.norm(dequantised(t, name) - w) < 0.12 * np.linalg.norm(w)
    assert t[p + "mlp.down_proj.weight"][0] == "BF16" and t[p + "input_layernorm.weight"][0] == "F32"
    ignore = json.loads((tmp_path / "out" / "hf_quant_config.json").read_text())["quantization"]["exclude_modules"]
    assert ignore == ["language_model.model.embed_tokens", p + "mlp.down_proj", "lm_head", "vision_tower*"]


def nan_weight(folder):
    t = tensors(folder)
    data = bytearray(t[Q][2])
    data[2 * 300:2 * 301] = struct.pack("<H", 0x7FC0)
    t[Q] = (*t[Q][:2], bytes(data))
    store(folder / "model.safetensors", t)


def index(**changes):
    def apply(folder):
        (folder / "model.safetensors").rename(folder / "a.safetensors")
        names = {name: "a.safetensors" for name in tensors(folder / "a.safetensors")}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {**names, **changes}}))
    return apply


def cut(keep):
    def apply(folder):
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:keep])
    return apply


FAULTS = {
    "NaN weight": (nan_weight, f"E0405.*{Q}, row 2, column 44 is NaN"),
    "cut header": (cut(999), "E0401.*cut short"),
    "cut data": (cut(-1), "E0401"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "E0402.*no weights"),
    "no config": (lambda f: (f / "config.json").unlink(), "E0902.*config.json"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "E0303"),
    "parent folder": (index(x="../x.safetensors"), "E0402.*`../x.safetensors` is refused"),
    "absolute path": (index(x="/etc/passwd"), "E0402.*`/etc/passwd` is refused"),
    "missing shard": (index(x="b.safetensors"), "E0402.*b.safetensors of tensor x is missing"),
    "not in its shard": (index(x="a.safetensors"), "E0402.*tensor x is not in its shard"),
    "not a folder": (shutil.rmtree, "E0902"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_broken_input(source, tmp_path, fault):
    import re
    break_it, expected = FAULTS[fault]
    break_it(source)
    done = run(ASAN + "adallmc", "quantize", source, "-o", tmp_path / "out", code=1)
    assert re.search(expected, done.stderr), done.stderr
    assert not list(tmp_path.glob("out*"))


def test_refusals(tmp_path):
    done = run(ASAN + "adallmc", "quantize", MODELS / "qwen3", "-o", tmp_path / "out", code=1)
    assert "E0406" in done.stderr and "quantised already" in done.stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("precious")
    done = run(ASAN + "adallmc", "quantize", BF16, "-o", tmp_path / "full", code=1)
    assert "exists already" in done.stderr and (tmp_path / "full" / "x").read_text() == "precious"
    (tmp_path / "void").mkdir()
    run(ASAN + "adallmc", "quantize", BF16, "-o", f"{tmp_path}/void/")
    assert (tmp_path / "void" / "model.safetensors").exists()
    run(ASAN + "adallmc", "quantize", BF16, "-o", tmp_path / "no" / "such" / "folder", code=1)
    for wrong in ([BF16], [BF16, "-o"], ["-o", "x"], [BF16, "-o", "x", "--method", "best"], [BF16, "-o", "x", "--shard-mb", "0"]):
        assert run(ASAN + "adallmc", "quantize", *wrong, code=2).stderr
    assert "--method" in run(ASAN + "adallmc", "quantize", "--help").stdout


def test_full_disk(tmp_path):
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    done = run("adallmc", "quantize", BF16, "-o", tmp_path / "out", code=1, preexec_fn=limit)
    assert "E0902" in done.stderr and not list(tmp_path.glob("out*"))
