#!/usr/bin/env python3
"""embed.py OUT.c FILE...: a C file that holds the text of every FILE, so that adallmc needs nothing beside itself."""
import pathlib
import sys


def literal(data: bytes) -> str:
    return ",".join(str(b) for b in data + b"\0")


def main():
    out, files = pathlib.Path(sys.argv[1]), sorted(sys.argv[2:])
    lines = ['#include "compiler/codegen/embedded.h"', ""]
    for i, name in enumerate(files):
        lines.append(f"static const char text_{i}[] = {{{literal(pathlib.Path(name).read_bytes())}}};")
    lines.append("const EmbeddedFile embedded_files[] = {")
    lines += [f'    {{"{name}", text_{i}, sizeof text_{i} - 1}},' for i, name in enumerate(files)]
    lines += ["    {0, 0, 0},", "};", f"const size_t n_embedded_files = {len(files)};", ""]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(lines))


main()
