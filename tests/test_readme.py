"""The README is read by newcomers first: what it names must be there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def tree() -> set[str]:
    """Files of the package that the tree names, as paths below ``proassist_lit``."""
    start = README.index("    proassist_lit/\n")
    folder, found = "", set()
    for line in README[start:].splitlines()[1:]:
        entry = line.split()[0] if line.split() else ""
        indent = len(line) - len(line.lstrip())
        if indent < 6:
            break
        if entry.endswith("/"):
            folder = entry
        else:
            found.add(entry if indent == 6 else folder + entry)
    return found


def test_readme_tree_is_the_package() -> None:
    package = ROOT / "proassist_lit"
    files = {
        str(path.relative_to(package))
        for pattern in ("*.py", "*.c")
        for path in package.rglob(pattern)
        if path.name[0] != "_"
    }
    assert tree() == files


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\+experiment=([\w,]+)", README))))
def test_readme_experiments_exist(name: str) -> None:
    for one in name.split(","):
        assert (ROOT / "conf" / "experiment" / f"{one}.yaml").is_file()


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", README))
def test_readme_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


@pytest.mark.parametrize("block", ["quick-start", "tests"])
def test_readme_has_the_commands_that_the_gate_runs(block: str) -> None:
    found = re.search(rf"<!-- ci:{block} -->\n```bash\n(.+?)```", README, re.DOTALL)
    assert found
    assert found[1].startswith("pip install")
