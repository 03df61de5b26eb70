"""What the server tests of llama-server and vLLM expect, as far as it concerns this server.

One row is one case, in words of our own and with requests of our own:

    case, more = source(project, file of theirs)
    case(id, what is sent -> what they expect, check)
    case(id, what is sent -> what they expect, check, differs="why this server answers otherwise")
    more(id, ...)  # along the same lines, but none of theirs: run with the others, and not counted

`check` gets a `Talk` (talk.py), sends, and is true when the answer is what they expect. ../test_cases.py runs every row: one
without `differs` must be true, one with it must be false, so that the list stays true. A row stands for one test of theirs, or for one
combination of its parameters (not yet in the rows of test_metrics.py and of key-guards-*, where names that a test of theirs loops over
have rows of their own); the file it was learnt from stands above it. Left out is what this server does not do at all: images and
audio, embeddings and ranking, LoRA, filling in the middle, shifted contexts, saved slots, stored responses, loading and unloading of
models, routes of cloud vendors; and tests of what a certain trained model says, or of the inside of their programs.
"""
import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Case:
    id: str
    project: str  # "llama.cpp" or "vLLM"
    file: str  # of that project, under tools/server/tests/unit or tests/entrypoints
    words: str
    check: Callable
    differs: str | None
    counted: bool


CASES = []


def source(project, file):
    """The functions that add a case of this file, and one along its lines."""
    def case(id, words, check, differs=None):
        CASES.append(Case(id, project, file, words, check, differs, True))

    def more(id, words, check):
        CASES.append(Case(id, project, file, words, check, None, False))
    return case, more


from cases import chat, completions, messages, responses, service, structured, tools  # noqa: E402,F401
