"""The METEOR program: asked rightly, and refused rightly where it is missing or fails."""

from __future__ import annotations

import shutil
import stat
import sys
import tomllib
from pathlib import Path

import pytest

from proassist_lit.errors import ConfigError
from proassist_lit.evaluation.config import EvaluationConfig
from proassist_lit.metrics import meteor
from proassist_lit.metrics.text import TextPairMetrics
from tests.evaluation.fakes import make_evaluator
from tests.fakes import tiny_model

JAVA = """#!{python}
import sys
tested, wanted = (open(path).read().splitlines() for path in sys.argv[4:6])
assert sys.argv[6:] == ["-l", "en", "-norm", "-r", "1"], sys.argv
print("Segment 1 score:\t0.1")
{end}
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for Java that scores by equal lines."""
    path = tmp_path / "java"
    end = "same = sum(a == b for a, b in zip(tested, wanted))\n"
    end += "print('Final score:            ', same / len(tested))"
    path.write_text(JAVA.format(python=sys.executable, end=end))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(shutil, "which", lambda _: str(path))
    monkeypatch.setattr(meteor, "_jar", lambda: Path("meteor.jar"))
    return path


def test_meteor_stands_beside_the_other_scores_of_words(program: Path) -> None:
    metric = TextPairMetrics("utterance", meteor=meteor.Meteor())
    metric.update([("Cut it!", "cut it"), ("boil", "fry\nit"), ("", "stir")])
    assert float(metric.compute()["utterance_meteor"]) == pytest.approx(1 / 3)


def test_meteor_of_an_evaluation_is_that_of_the_program_that_lies_in_the_package(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the program is looked for
    assert meteor._jar() is None or "site-packages" in str(meteor._jar())
    folder = tmp_path / "made_up_captions"
    jar = folder / "meteor/meteor-1.5.jar"
    jar.parent.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('it is never imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(meteor, "PACKAGE", folder.name)
    assert meteor._jar() is None  # a package without the program
    jar.touch()
    assert meteor._jar() == jar
    monkeypatch.setenv("PATH", str(program.parent))
    noted = f"assert sys.argv[1:4] == ['-Xmx2G', '-jar', {str(jar)!r}], sys.argv\n"
    end = noted + "print('Final score:            ', 0.625 if len(tested) == len(wanted) else 0)"
    program.write_text(JAVA.format(python=sys.executable, end=end))

    settings = EvaluationConfig(meteor=True, candidates=1)
    found = make_evaluator(settings=settings).evaluate(tiny_model()).metrics

    beside = {key.removesuffix("rouge_l") for key in found if key.endswith("utterance_rouge_l")}
    scores = {key: value for key, value in found.items() if key.endswith("_meteor")}
    assert beside
    assert scores == {f"{key}meteor": 0.625 for key in beside}


def test_a_program_that_fails_is_told_with_its_words(program: Path) -> None:
    program.write_text(JAVA.format(python=sys.executable, end="sys.exit('no memory')"))
    with pytest.raises(ConfigError, match=r"failed with code 1: no memory; set.*meteor=false"):
        meteor.Meteor()(["a"], [["a"]])


def test_a_program_that_does_not_end_is_told(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meteor, "TIMEOUT_S", 0.5)
    program.write_text(JAVA.format(python=sys.executable, end="import time; time.sleep(60)"))
    with pytest.raises(ConfigError, match=r"program did not end within 0\.5 s; set.*meteor=false"):
        meteor.Meteor()(["a"], [["a"]])


@pytest.mark.parametrize(
    ("java", "jar", "said"),
    [
        (None, Path("x"), r"needs java, on the path;"),
        ("java", None, r"needs the package pycocoevalcap; pip install -e '\.\[meteor\]' in"),
        (None, None, r"java, on the path and the package"),
    ],
)
def test_what_is_missing_is_named_before_anything_is_streamed(
    java: str | None, jar: Path | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: java)
    monkeypatch.setattr(meteor, "_jar", lambda: jar)
    with pytest.raises(ConfigError, match=said):
        make_evaluator(settings=EvaluationConfig(meteor=True))
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    (wanted,) = project["project"]["optional-dependencies"]["meteor"]
    assert wanted.startswith(meteor.PACKAGE)
