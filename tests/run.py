#!/usr/bin/env python3
"""Run every test: lint, units (release, and with sanitizers), short fuzzing, end to end. Ends with `N passed, N failed`.

    tests/run.py [STEP ...]      steps: lint unit asan tsan cuda fuzz e2e (default: all)
"""
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
FUZZ_SECONDS = 4  # for each target; `ninja fuzz-long` gives each ten minutes


class Score:
    def __init__(self):
        self.passed, self.failed = 0, []

    def add(self, name, ok, detail=""):
        if ok:
            self.passed += 1
        else:
            self.failed.append(name)
            print(f"FAILED {name}\n{detail}", flush=True)


def call(command, **options):
    return subprocess.run([str(c) for c in command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                          **options)


def lint(score):
    for command in (["./configure.py", "--check"], [sys.executable, "tests/lint.py"]):
        r = call(command)
        score.add(" ".join(command), r.returncode == 0, r.stdout)


def cmocka_answers(score, binary, code, text):
    ok = re.findall(r"^\[\s+OK \] (\S+)", text, re.M)
    score.passed += len(ok)
    for name in dict.fromkeys(re.findall(r"^\[  FAILED  \] (\S+)$", text, re.M)):
        if name not in ok:
            own = re.search(rf"^\[ RUN      \] {name}\n(.*?)^\[  FAILED  \]", text, re.M | re.S)
            score.add(f"{binary}:{name}", False, (own and own[1].strip() or text)[-4000:])
    if code and not re.search(r"FAILED", text):
        score.add(binary, False, text[-4000:])


def cmocka(score, folder):
    for binary in sorted((ROOT / folder).glob("test_*")):
        if binary.suffix:
            continue
        r = call([binary])
        cmocka_answers(score, str(binary.relative_to(ROOT)), r.returncode, r.stdout)


def cuda(score):
    """Every CUDA template alone, with its sample specs, on both kinds of card: it compiles without a warning, and no register is spilled."""
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    if not pathlib.Path(nvcc).exists():
        print("cuda: there is no nvcc here, templates are not compiled")
        return

    def one(job):
        template, arch = job
        r = call([nvcc, "-std=c++17", "-O3", "-I.", f"-arch={arch}", "-Xptxas=-v", "-cubin", "-o", "/dev/null", template])
        bad = re.findall(r"[1-9]\d* bytes (?:spill|stack)|warning", r.stdout)
        return f"{template.relative_to(ROOT)} {arch}", r.returncode == 0 and not bad, r.stdout[-4000:]
    jobs = [(t, arch) for t in sorted((ROOT / "templates").glob("*.cu")) for arch in ("sm_89", "sm_90")]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for answer in pool.map(one, jobs):
            score.add(*answer)


def fuzz(score):
    r = call([sys.executable, "tests/fuzz/run.py", "--seconds", str(FUZZ_SECONDS)])
    score.add("short fuzzing", r.returncode == 0, r.stdout[-6000:])


def e2e(score):
    r = subprocess.Popen([sys.executable, "-m", "pytest", "-q", "-x" if "-x" in sys.argv else "-ra", "tests"], cwd=ROOT, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    tail = ""
    for line in r.stdout:
        print(line, end="", flush=True)
        tail = line if " in " in line else tail
    r.wait()
    score.passed += sum(int(n) for n in re.findall(r"(\d+) passed", tail))
    bad = sum(int(n) for n in re.findall(r"(\d+) (?:failed|error)", tail))
    score.failed += ["pytest"] * max(bad, int(r.returncode != 0))


STEPS = {"lint": lint, "unit": lambda s: cmocka(s, "build/release/tests"), "asan": lambda s: cmocka(s, "build/asan/tests"),
         "tsan": lambda s: cmocka(s, "build/tsan/tests"),
         "cuda": cuda, "fuzz": fuzz, "e2e": e2e}


def main():
    score = Score()
    for name in [a for a in sys.argv[1:] if a in STEPS] or STEPS:
        begin = time.monotonic()
        STEPS[name](score)
        print(f"{name}: {time.monotonic() - begin:.1f} s, {score.passed} passed so far", flush=True)
    if score.failed:
        print("failed:", *score.failed, sep="\n  ")
    print(f"{score.passed} passed, {len(score.failed)} failed")
    sys.exit(1 if score.failed else 0)


if __name__ == "__main__":
    main()
