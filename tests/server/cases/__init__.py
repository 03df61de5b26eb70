"""What the server tests of llama-server and vLLM expect, as far as it concerns this server.

A case stands for one test of theirs, or for one combination of its parameters, in words and with requests of our own:

    case, also, more = source(project, file of theirs)
    case(id, what is sent -> what they expect, check)
    case(id, what is sent -> what they expect, check, differs="why this server answers otherwise")
    also(id, ...)  # what the same test of theirs expects besides: a row of its own, but the same case
    more(id, ...)  # along the same lines, but none of theirs: run with the others, and not counted

`check` gets a `Talk` (talk.py), sends, and is true when the answer is what they expect. ../test_cases.py runs every row: one
without `differs` must be true, one with it must be false, so that the list stays true; and none may be true of a server that
answers everything wrongly. A case is answered as they expect when all of its rows are. The file it was learnt from stands above it.

Combinations that come to the same here (template engines, draft models) are one case. Translated is what belongs to a program: the
names of its model, of its build and of its options, and llama-server's `/completion`, which `/v1/completions` stands for. Left out
is what this server does not do at all: images and audio, embeddings and ranking, LoRA, filling in the middle, shifted contexts,
saved slots, all but three tests of stored responses, many chats in one request, `thinking_token_budget`, a prefix of all paths,
loading and unloading of models, routes of cloud vendors; and tests of what a certain trained model says, or of the inside of their
programs.
"""
import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Case:
    id: str
    of: str | None  # the id of the case that it belongs to; None: not counted
    project: str  # "llama.cpp" or "vLLM"
    file: str  # of that project, under tools/server/tests/unit or tests/entrypoints
    words: str
    check: Callable
    differs: str | None


CASES = []


def source(project, file):
    """The functions that add a case of this file, a further row of it, and a row along its lines."""
    last = None

    def case(id, words, check, differs=None):
        nonlocal last
        last = id
        CASES.append(Case(id, id, project, file, words, check, differs))

    def also(id, words, check, differs=None):
        assert last, f"{id}: no case before it"
        CASES.append(Case(id, last, project, file, words, check, differs))

    def more(id, words, check):
        CASES.append(Case(id, None, project, file, words, check, None))
    return case, also, more


from cases import chat, completions, messages, responses, service, structured, tools  # noqa: E402,F401
