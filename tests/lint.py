#!/usr/bin/env python3
"""The rules of the house that a script can check: include order, layout, size of files and functions, forbidden words."""
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# folder -> folders (or files) whose headers it may include, beside its own
MAY_INCLUDE = {
    "runtime/base": [],
    "runtime/format.h": [],
    "runtime/device": ["runtime/base", "runtime/format.h", "templates/lib/abi.h"],
    "runtime/exec": ["runtime/base", "runtime/format.h", "runtime/device", "templates/lib/abi.h"],
    "runtime/text": ["runtime/base", "runtime/format.h"],
    "runtime/grammar": ["runtime/base", "runtime/text", "templates/lib/abi.h"],
    "runtime/engine": ["runtime/base", "runtime/format.h", "runtime/exec", "templates/lib/abi.h"],
    "runtime/server": ["runtime/base", "runtime/format.h", "runtime/engine", "runtime/text", "runtime/grammar"],
    "runtime/verbs": ["runtime"],
    "runtime/main.c": ["runtime/base", "runtime/verbs"],
    "compiler/frontend": ["runtime/base", "runtime/text", "compiler/ir", "compiler/codegen/embedded.h"],
    "compiler/ir": ["runtime/base", "runtime/format.h", "compiler/frontend/source.h", "compiler/passes/fuse.h", "templates/templates.def", "templates/lib/abi.h"],
    "compiler/targets": ["runtime/base", "runtime/format.h", "compiler/ir", "compiler/codegen/host.h", "compiler/codegen/cuda.h", "compiler/codegen/image.h", "templates/templates.def"],
    "compiler/passes": ["runtime/base", "runtime/format.h", "compiler/ir", "compiler/targets", "compiler/pack/layout.h", "templates/lib/abi.h"],
    "compiler/codegen": ["runtime/base", "runtime/format.h", "compiler/ir", "compiler/targets", "templates/templates.def"],
    "compiler/pack": ["runtime/base", "runtime/format.h", "compiler/ir", "compiler/frontend", "compiler/codegen"],
    "compiler/verbs": ["runtime/base", "runtime/format.h", "compiler"],
    "compiler/main.c": ["runtime/base", "compiler/verbs"],
    "templates": ["templates/lib", "templates/host"],
}
FILE_LINES_MAX, FUNCTION_LINES_MAX, KERNEL_LINES_MAX = 800, 70, 250
FORBIDDEN = re.compile(r"\b(TODO|FIXME|XXX)\b|\balloca\s*\(|/work/|/tmp/bash")


def sources():
    for top in ("compiler", "runtime", "templates", "tests"):
        for p in sorted((ROOT / top).rglob("*")):
            if p.suffix in (".c", ".h", ".cu", ".cuh", ".def") and "golden" not in p.parts:
                yield p


def room(path):
    rooms = [r for r in MAY_INCLUDE if path == r or path.startswith(r + "/")]
    return max(rooms, key=len) if rooms else None


def check_includes(path, text, complain):
    here = room(path)
    if path.startswith("tests/"):
        return
    if here is None:
        complain(f"{path}: stands in no room of the house (tests/lint.py lists them)")
        return
    for i, line in enumerate(text.splitlines(), 1):
        m = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if not m:
            continue
        wanted = m[1]
        if not (ROOT / wanted).exists():
            if path.startswith("templates/"):
                continue  # found through the include path that codegen gives
            complain(f"{path}:{i}: {wanted}: includes name files from the top of the tree")
        elif room(wanted) != here and not any(wanted == ok or wanted.startswith(ok + "/") for ok in MAY_INCLUDE[here]):
            complain(f"{path}:{i}: {here} may not include {wanted}")


def check_functions(paths, complain):
    if not shutil.which("ctags"):
        return
    out = subprocess.run(["ctags", "--fields=+ne", "--languages=C,C++", "--langmap=C:+.def", "--kinds-C=f", "-o", "-", *paths], cwd=ROOT,
                         capture_output=True, text=True).stdout
    for line in out.splitlines():
        parts = line.split("\t")
        begin = next((int(p[5:]) for p in parts if p.startswith("line:")), 0)
        end = next((int(p[4:]) for p in parts if p.startswith("end:")), 0)
        limit = KERNEL_LINES_MAX if parts[1].startswith("templates/") else FUNCTION_LINES_MAX
        if end - begin + 1 > limit:
            complain(f"{parts[1]}:{begin}: {parts[0]} has {end - begin + 1} lines, more than {limit}")


def check_format(paths, complain):
    if not shutil.which("clang-format"):
        complain("clang-format is not installed")
        return
    r = subprocess.run(["clang-format", "--dry-run", "--Werror", *[p for p in paths if not p.endswith(".def")]], cwd=ROOT,
                       capture_output=True, text=True)
    for line in [x for x in r.stderr.splitlines() if "error:" in x][:20]:
        complain(line)


def main():
    problems = []
    paths = []
    for p in sources():
        path, text = str(p.relative_to(ROOT)), p.read_text()
        paths.append(path)
        check_includes(path, text, problems.append)
        if text.count("\n") > FILE_LINES_MAX:
            problems.append(f"{path}: {text.count(chr(10))} lines, more than {FILE_LINES_MAX}")
        for i, line in enumerate(text.splitlines(), 1):
            if FORBIDDEN.search(line):
                problems.append(f"{path}:{i}: {line.strip()}: not in this house")
    check_functions([p for p in paths if not p.startswith("tests/")], problems.append)
    check_format(paths, problems.append)
    print("\n".join(problems) or f"{len(paths)} files are in order")
    sys.exit(1 if problems else 0)


main()
