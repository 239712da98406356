"""An evaluation that is killed, again and again, and still comes to the same end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from proassist_lit.evaluation.config import EvaluationConfig
from proassist_lit.evaluation.evaluator import Evaluator
from tests.evaluation.fakes import CONFIG, make_evaluator
from tests.fakes import tiny_model

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, os, signal, sys
from pathlib import Path
from proassist_lit.streaming import answers
from tests.evaluation.test_killed import evaluator
from tests.fakes import tiny_model

folder, most = Path(sys.argv[1]), int(sys.argv[2])
write = answers.AnswerStore.write

def killing(self, key, frames):
    global most
    if most == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    most -= 1
    with (folder / "written").open("a") as file:
        file.write(key + "\\n")
    write(self, key, frames)

answers.AnswerStore.write = killing
made = evaluator()
result = made.evaluate(tiny_model(), answers=folder / "answers")
(folder / "metrics.json").write_text(json.dumps(result.metrics))
made.clear_answers()
"""


def evaluator() -> Evaluator:
    """Thresholds are open, so that val is streamed with several rows."""
    return make_evaluator(
        replace(CONFIG, theta_speak=None, theta_dst=None), EvaluationConfig(candidates=3)
    )


@pytest.mark.road
def test_a_killed_evaluation_streams_nothing_twice_and_ends_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    codes = []
    for most in (2, 7, 5, 99):
        done = subprocess.run([*command, str(most)], cwd=ROOT, capture_output=True, timeout=120)
        codes.append(done.returncode)
    assert codes == [-signal.SIGKILL] * 3 + [0], done.stderr.decode()[-2000:]

    whole = evaluator().evaluate(tiny_model()).metrics
    assert json.loads((tmp_path / "metrics.json").read_text()) == whole
    written = (tmp_path / "written").read_text().split()
    assert len(written) == len(set(written)) > 20
    assert not (tmp_path / "answers").exists()
