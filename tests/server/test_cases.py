"""Runs the cases of llama-server's and vLLM's server tests that stand in cases/, and counts them."""
import collections
import re

import pytest
from cases import CASES
from cases.talk import KEY, Talk
from serving import ROOT, Server

LEAST = 0.86  # of the cases: what agrees may not become less
COUNTED = {c.of: c for c in CASES if c.of}
AGREE = COUNTED.keys() - {c.of for c in CASES if c.differs}


@pytest.fixture(scope="module")
def talk(server, ada, tmp_path_factory):
    others, keys = {}, tmp_path_factory.mktemp("cases") / "keys"
    keys.write_text(KEY + "\n")
    keys.chmod(0o600)

    def start(*arguments):
        if arguments not in others:
            others[arguments] = Server(ada, *arguments)
        return others[arguments]
    yield Talk(server, start, lambda *arguments: Server(ada, *arguments), start("--api-key-file", keys), keys)
    for other in others.values():
        other.stop()


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_case(talk, case):
    talk.said = []
    try:
        agrees, why = bool(case.check(talk)), ""
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration) as e:  # the answer has another shape
        agrees, why = False, repr(e)
    if case.differs:
        assert not agrees, f"listed as different ({case.differs}), but it agrees now: {case.words}"
    else:
        said = "\n".join(f"  {path} {body}\n    {status} {text}" for path, body, status, text in talk.said)
        assert agrees, f"{case.project} {case.file}: {case.words} {why}\n{said}"


def test_enough_agree():
    assert len(AGREE) >= LEAST * len(COUNTED), f"{len(AGREE)} of {len(COUNTED)}"


def test_the_list_is_in_order():
    twice = [i for i, n in collections.Counter(c.id for c in CASES).items() if n > 1]
    assert not twice
    assert all(c.project in ("llama.cpp", "vLLM") and c.file.endswith(".py") and " -> " in c.words for c in CASES)
    assert len(COUNTED) > 100 and {COUNTED[i].project for i in AGREE} == {"llama.cpp", "vLLM"}


def test_the_readme_has_the_count():
    found = re.search(r"(\d+) of (\d+) cases of llama-server's and vLLM's own server tests", (ROOT / "README.md").read_text())
    assert found and (int(found[1]), int(found[2])) == (len(AGREE), len(COUNTED)), f"README says {found and found[0]}; {len(AGREE)} of {len(COUNTED)} agree"
