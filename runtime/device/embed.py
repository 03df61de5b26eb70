#!/usr/bin/env python3
"""embed.py OUT.c NAME FILE: a C file that holds the bytes of FILE as NAME, so that adallm-rt needs nothing beside itself."""
import pathlib
import sys


def main():
    out, name, data = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3]).read_bytes()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(f"extern const unsigned char {name}[];\nextern const unsigned long {name}_bytes;\n"
                   f"const unsigned long {name}_bytes = {len(data)};\n"
                   f"_Alignas(64) const unsigned char {name}[] = {{{','.join(map(str, data))}}};\n")


main()
