#!/usr/bin/env python3
"""Run every libFuzzer target over its corpus and for a while beyond it.

    tests/fuzz/run.py [--seconds N] [--jobs N] [NAME ...]

A crash leaves its input in build/fuzz/crash-*; rerun it with build/fuzz/fuzz_NAME FILE.
"""
import argparse
import concurrent.futures
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def run(target, seconds):
    name = target.name.removeprefix("fuzz_")
    found, seeds = ROOT / "build" / "fuzz" / "corpus" / name, ROOT / "tests" / "fuzz" / "corpus" / name
    found.mkdir(parents=True, exist_ok=True)
    command = [target, f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1", "-close_fd_mask=1",
               f"-artifact_prefix={ROOT / 'build' / 'fuzz' / 'crash-'}{name}-", found] + ([seeds] if seeds.is_dir() else [])
    r = subprocess.run([str(c) for c in command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    runs = [line.split()[-1] for line in r.stdout.splitlines() if "number_of_executed_units" in line]
    return name, r.returncode, runs[0] if runs else "0", r.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    targets = [p for p in sorted((ROOT / "build" / "fuzz").glob("fuzz_*")) if not p.suffix
               and (not args.names or p.name.removeprefix("fuzz_") in args.names)]
    bad = 0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for name, code, runs, output in pool.map(lambda t: run(t, args.seconds), targets):
            print(f"{name}: {runs} inputs, {'ok' if code == 0 else 'FAILED'}", flush=True)
            if code:
                bad += 1
                print(output[-3000:])
    sys.exit(1 if bad or not targets else 0)


main()
