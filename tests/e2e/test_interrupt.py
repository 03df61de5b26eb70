"""An interrupted compilation leaves nothing behind: no artifact, no temporary file, no temporary folder."""
import signal
import subprocess
import time

import pytest

from tools import BUILD, MODELS, ROOT


def interrupt(command, after, with_signal, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    p = subprocess.Popen([BUILD / "adallmc", *map(str, command)], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                         env={"PATH": "/usr/bin:/bin", "TMPDIR": str(scratch)})
    time.sleep(after)
    p.send_signal(with_signal)
    p.wait(timeout=20)
    time.sleep(0.2)
    return p.returncode, [f.name for f in scratch.iterdir() if f.name.startswith("adallmc")]


@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGTERM])
def test_compile(tmp_path, with_signal):
    out = tmp_path / "x.ada"
    code, left = interrupt(["compile", MODELS / "quantize", "-o", out], 0.5, with_signal, tmp_path)
    assert code == 128 + with_signal and not left and not list(tmp_path.glob("x.ada*"))


def test_pack(tmp_path):
    """While gigabytes of random weights are written."""
    out = tmp_path / "x.ada"
    command = [BUILD / "adallmc", "compile", "models/qwen3-1.7b.yaml", "--random-weights", "-o", out]
    p = subprocess.Popen([str(c) for c in command], cwd=ROOT, stderr=subprocess.DEVNULL)
    for _ in range(600):
        if list(tmp_path.glob("x.ada.tmp*")) or p.poll() is not None:
            break
        time.sleep(0.1)
    assert p.poll() is None and list(tmp_path.glob("x.ada.tmp*"))
    p.terminate()
    assert p.wait(timeout=20) == 128 + signal.SIGTERM
    assert not list(tmp_path.iterdir())
