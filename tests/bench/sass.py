#!/usr/bin/env python3
"""SASS instructions of the decode products' inner loop, a stage (16 rows x 64 columns) and warp. Needs nvcc and nvdisasm.

    tests/bench/sass.py [sm_89 ...]
"""
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
KERNELS = {"linear.cu": ["linear_sample"], "gate_up.cu": ["gate_up_sample"]}  # 8 columns, NVFP4
MMA_A_STAGE = 4


def sass(source, sm):
    with tempfile.TemporaryDirectory() as folder:
        cubin = pathlib.Path(folder) / "x.cubin"
        subprocess.run(["nvcc", "-std=c++17", "-O3", f"-arch={sm}", "-cubin", "-I.", "-o", cubin, f"templates/{source}"], cwd=ROOT, check=True)
        return subprocess.run(["nvdisasm", "-c", cubin], capture_output=True, text=True, check=True).stdout


def inner_loop(text, kernel):
    """Instructions and mma of the shortest loop that has any mma."""
    body = text.split(f".text.{kernel}:\n")[1].split(".section")[0]
    labels, code, loops = {}, [], []
    for line in body.splitlines():
        line = re.sub(r"/\*[0-9a-f]*\*/", "", line).strip()
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = len(code)
        elif re.match(r"(@!?U?P\d+ )?[A-Z]", line):
            code.append(line)
    for i, line in enumerate(code):
        to = re.search(r"BRA.*`\((\.L_x_\d+)\)", line)
        if to and labels.get(to[1], i + 1) <= i:
            loop = code[labels[to[1]]:i + 1]
            mma = sum("HMMA" in x for x in loop)
            if mma:
                loops.append((len(loop), mma))
    return min(loops)


for sm in sys.argv[1:] or ["sm_89", "sm_90"]:
    for source, kernels in KERNELS.items():
        text = sass(source, sm)
        for kernel in kernels:
            instructions, mma = inner_loop(text, kernel)
            print(f"{sm} {kernel}: {instructions * MMA_A_STAGE / mma:.1f} instructions a stage and warp")
