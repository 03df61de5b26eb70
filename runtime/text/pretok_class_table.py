#!/usr/bin/env python3
"""Write pretok_class_table.inc: the classes of code points that tokenizers ask about.

Needs `pip install unicodedata2==16.0.0 regex` and Perl (for ages). The Unicode versions are those of the reference
implementation (Hugging Face tokenizers 0.23), not those of any library installed where this project runs:
letters, numbers and word characters are Unicode 16.0, normalisation is Unicode 9.0.
"""
import pathlib
import subprocess

import regex
import unicodedata2

LETTER, NUMBER, SPACE, WORD, NFC = 1, 2, 4, 8, 16
PERL = r'for (0..0x10FFFF) { next if $_ >= 0xD800 && $_ < 0xE000; print "$_\n" if chr($_) =~ /\p{Present_In: 9.0}/ }'


def classes():
    assert unicodedata2.unidata_version == "16.0.0"
    old = set(map(int, subprocess.run(["perl", "-e", PERL], capture_output=True, text=True, check=True).stdout.split()))
    word, space = regex.compile(r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]"), regex.compile(r"\p{White_Space}")
    for cp in range(0x110000):
        c, kind = chr(cp), unicodedata2.category(chr(cp))
        known = kind not in ("Cn", "Cs")
        yield (LETTER * (kind[0] == "L") | NUMBER * (kind[0] == "N") | SPACE * (known and bool(space.match(c)))
               | WORD * (known and bool(word.match(c))) | NFC * (cp in old))


def main():
    ranges, last = [], None
    for cp, bits in enumerate(classes()):
        if bits != last:
            ranges.append((cp, bits))
        last = bits
    rows = [f"{{0x{cp:X}, {bits}}}," for cp, bits in ranges]
    lines, line = [], ""
    for row in rows:
        if len(line) + len(row) > 106:
            lines.append(line.rstrip())
            line = ""
        line += row + " "
    text = ("// Written by pretok_class_table.py: {first code point, classes}, up to the next row.\n"
            + "\n".join(lines + [line.rstrip()]) + "\n")
    pathlib.Path(__file__).with_suffix(".inc").write_text(text)
    print(len(ranges), "ranges")


main()
