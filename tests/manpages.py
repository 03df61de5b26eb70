#!/usr/bin/env python3
"""Write the man pages and the completions of bash from what the programs' --help says, so that none can drift.

    tests/manpages.py            write compiler/adallmc.1, runtime/adallm-rt.1 and contrib/completion.bash
    tests/manpages.py --check    exit 1 if they are not what this script writes
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATE, VERSION = "2026-11-23", "0.1.0"
LOG = ("ADALLM_LOG", "a comma list of log categories, or all: log lines on standard error. It changes no result.")

PAGES = {
    "adallmc": {
        "path": "compiler/adallmc.1",
        "title": "compile a language model ahead of time",
        "about": "Reads a recipe and a Hugging Face checkpoint and writes one artifact (.ada) for adallm-rt: weights, machine code, a static plan, "
                 "the tokenizer, the chat template as a program, and a self-test. NVFP4 weights stay NVFP4. Equal inputs give equal bytes; the "
                 "artifact appears only when all of it is written.",
        "environment": [("CC", "the C compiler for the kernels of the host target; by default cc"),
                        ("NVCC", "the CUDA compiler for cards; by default nvcc, else /usr/local/cuda/bin/nvcc"),
                        ("XDG_CACHE_HOME", "its folder adallm keeps compiled kernels, at most 256 MiB; by default ~/.cache"),
                        ("TMPDIR", "where kernels are compiled; by default /tmp"), LOG],
        "examples": ["adallmc compile ./Qwen3-8B-NVFP4 -o qwen3.ada", "adallmc compile models/qwen3-8b.yaml -o random.ada --random-weights",
                     "adallmc compile ./gemma3-270m -o gemma3.ada --set quantize=mse --set context=8192",
                     "adallmc quantize ./Qwen3-0.6B -o ./Qwen3-0.6B-NVFP4 --report",
                     "adallmc eval ./gemma3-270m --ids ids.txt -o logits.npy"],
        "see": "adallm-rt",
    },
    "adallm-rt": {
        "path": "runtime/adallm-rt.1",
        "title": "run a language model that adallmc compiled",
        "exits": [".TP", ".B 10", "the device failed while serving: a supervisor should start the server again"],
        "about": "Maps an artifact, checks every byte of it against its hashes, binds its plan to a device and replays it. Text goes to standard "
                 "output, everything else to standard error. What a sequence gets depends on its own request alone: neither the batch, nor "
                 "chunks, nor threads change a bit.",
        "environment": [LOG],
        "examples": ["adallm-rt qwen3.ada --port 8000 --served-model-name qwen3", "adallm-rt run gemma3.ada 'The capital of France is' --max-tokens 32", "adallm-rt run qwen3.ada",
                     "adallm-rt logits qwen3.ada --ids ids.txt -o logits.npy --batch 4 --chunk 64",
                     "echo '{\"text\": \"hello\"}' | adallm-rt tokenize qwen3.ada --jsonl",
                     "adallm-rt verify qwen3.ada && adallm-rt selftest qwen3.ada", "adallm-rt bench qwen3.ada --batch 1,2,4,8"],
        "see": "adallmc",
    },
}


def say(program, *arguments):
    return subprocess.run([str(ROOT / "build" / program), *arguments], capture_output=True, text=True, check=True).stdout


def escape(text):
    return text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")


def line(text):
    return "\\&" + escape(text) if text.startswith(".") else escape(text)


def verbs(program):
    return re.findall(r"^  (\S+)\s{2,}(.+)$", say(program, "--help"), re.M)


def verbatim(lines):
    return [".nf", ".RS 2", *[line(x) for x in lines], ".RE", ".fi"]


def paragraphs(text):
    for paragraph in re.split(r"\n\n+", text.strip("\n")):
        lines = paragraph.split("\n")
        yield ".PP"
        if any(x.startswith("  ") for x in lines):
            if not lines[0].startswith("  "):
                yield line(lines.pop(0))
            yield from verbatim(x[2:] for x in lines)
        else:
            yield from map(line, lines)


def options(text):
    for x in text.rstrip("\n").split("\n"):
        m = re.match(r"^  (-\S+)(?: (\S+))?\s*(.*)$", x)
        if m:
            yield from (".TP", ".B " + line(m[1] + (" " + m[2] if m[2] else "")), line(m[3]))
        else:
            yield line(x.strip())


def verb_section(program, verb, about):
    text = say(program, verb, "--help")
    yield f'.SS "{escape(program)} {verb}"'
    usage = re.match(r"usage: (.*)\n", text)
    if not usage:
        yield line(about.capitalize() + ".")
        return
    body, _, rest = text[usage.end():].partition("\noptions:\n")
    yield from (".nf", ".B " + line(usage[1]), ".fi", *paragraphs(body), *options(rest))


def page(program):
    p = PAGES[program]
    out = [f'.TH {escape(program.upper())} 1 "{DATE}" "adallm {VERSION}" "adallm"', ".SH NAME", f"{escape(program)} \\- {escape(p['title'])}",
           ".SH SYNOPSIS", f".B {escape(program)}", ".I VERB", ".RI [ arguments ]", ".SH DESCRIPTION", line(p["about"]), ".SH VERBS"]
    for verb, about in verbs(program):
        out += verb_section(program, verb, about)
    out += ['.SH "EXIT STATUS"', ".TP", ".B 0", "success", ".TP", ".B 1",
            "bad input or a failed check; one located sentence on standard error says what is wrong, where, and what would be right",
            ".TP", ".B 2", "wrong usage", *p.get("exits", []), ".SH ENVIRONMENT"]
    for name, about in p["environment"]:
        out += [".TP", ".B " + line(name), line(about)]
    out += [".SH EXAMPLES", *verbatim(p["examples"]), '.SH "SEE ALSO"', f".BR {escape(p['see'])} (1)"]
    return "\n".join(out) + "\n"


COMPLETION = """\
# Completion of bash for adallmc and adallm-rt: source it, or put it into /etc/bash_completion.d.
_adallm() {{
    local verb=${{COMP_WORDS[1]}} word=${{COMP_WORDS[COMP_CWORD]}} words=
    case "$1 $verb" in
{cases}
    esac
    [[ $COMP_CWORD -eq 1 ]] && words=$(_adallm_verbs "$1")
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word"; compgen -f -- "$word")
}}
_adallm_verbs() {{
    case "$1" in
{verbs}
    esac
}}
complete -o filenames -F _adallm adallmc adallm-rt
"""


def completion():
    cases, all_verbs = [], []
    for program in PAGES:
        names = [name for name, _ in verbs(program)]
        all_verbs.append(f"    {program}) echo '{' '.join(names)}' ;;")
        for name in names:
            words = re.findall(r"^  (--?[a-z-]+)", say(program, name, "--help"), re.M)
            pattern = f"'{program} {name}'" + (f" | '{program} '*.ada" if name == "serve" else "")
            cases += [f"    {pattern}) words='{' '.join(words)}' ;;"] if words else []
    return COMPLETION.format(cases="\n".join(cases), verbs="\n".join(all_verbs))


def main():
    stale = []
    written = {p["path"]: page(program) for program, p in PAGES.items()} | {"contrib/completion.bash": completion()}
    for relative, text in written.items():
        path = ROOT / relative
        if "--check" in sys.argv:
            stale += [] if path.exists() and path.read_text() == text else [relative]
        else:
            path.write_text(text)
    if stale:
        sys.exit(f"stale: {', '.join(stale)}; run tests/manpages.py")


if __name__ == "__main__":
    main()
