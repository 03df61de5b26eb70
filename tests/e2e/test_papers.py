"""What the papers say is true of the programs and of the tree."""
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from tools import ROOT, run

PAPERS = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "STYLE.md", "compiler/ir/IR.md"]


def test_man_pages_are_what_help_says():
    subprocess.run([sys.executable, ROOT / "tests" / "manpages.py", "--check"], check=True)


@pytest.mark.skipif(not shutil.which("man"), reason="man is not installed")
@pytest.mark.parametrize("page", ["compiler/adallmc.1", "runtime/adallm-rt.1"])
def test_man_pages_render(page):
    done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", ROOT / page], capture_output=True, text=True)
    assert done.returncode == 0 and "EXIT STATUS" in done.stdout and not done.stderr


def test_readme_names_every_recipe_field():
    help_text = run("adallmc", "compile", "--help").stdout
    fields = re.findall(r"^  ([a-z_]+)  ", help_text.split("recipe fields")[1].split("options:")[0], re.M)
    assert len(fields) >= 15
    readme = (ROOT / "README.md").read_text()
    assert not [f for f in fields if f"`{f}`" not in readme]


def test_error_numbers_are_unique():
    numbers = re.findall(r"^E\(\w+, (\d+),", (ROOT / "runtime/base/errors.def").read_text(), re.M)
    assert len(numbers) > 30 and len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("paper", PAPERS)
def test_paths_in_papers_exist(paper):
    """Every `path/like.this` that a paper names is there (from the top, or from the folder that its room means)."""
    rooms = [ROOT] + [ROOT / d for d in ("compiler", "runtime", "templates", "models", "tests", "compiler/ir")]
    for name in re.findall(r"`([A-Za-z_][\w./-]*/[\w.*-]*\.(?:c|h|def|py|md|ninja|yaml|cu|1))`", (ROOT / paper).read_text()):
        if re.search(r"NAME|build/", name):
            continue
        assert any(list(room.glob(name)) for room in rooms), f"{paper} names {name}"
