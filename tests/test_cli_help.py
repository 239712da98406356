"""The help of the command line, and Hydra's own options."""

from __future__ import annotations

import re

import pytest

from proassist_lit.config import RunConfig
from tests.app import REPO_CONF, App


def test_help_shows_experiments_groups_and_every_key(app: App) -> None:
    (app.conf_dir / "trainer/quick.yaml").write_text("max_step: 3\n")  # help works nevertheless
    assert app("--help") == 0
    assert app.err == ""
    assert re.search(r"per_turn +Decisions at the ends of turns", app.out)
    assert re.search(r"objective +per_token, per_turn", app.out)
    assert "trainer.max_steps: int = 600\n      Optimizer steps; -1 for no limit.\n" in app.out
    assert "logger.wandb: offline|online|disabled = offline\n" in app.out
    assert "stream.theta_speak: float or null = null\n" in app.out
    assert "that a job returns; maximize what train.py does, an F1." in app.out
    assert "data.toy: How the ``toy`` recordings are invented." in app.out
    assert max(map(len, app.out.splitlines())) <= 130


def test_examples_of_the_help_need_no_data(app: App) -> None:
    assert app("--help") == 0
    examples, _, rest = app.out.partition("Experiments (+experiment=NAME)")
    assert set(re.findall(r"\+experiment=(\w+)", examples.partition("\n\n  ")[2])) == {"per_turn"}
    listed = re.findall(r"^  (\w+) ", rest.partition("Sweeps")[0], re.MULTILINE)
    assert len(listed) == len(list((REPO_CONF / "experiment").glob("*.yaml")))
    texts = [(REPO_CONF / f"experiment/{name}.yaml").read_text() for name in listed]
    chooses = ["override /data" in text or "override /model" in text for text in texts]
    assert chooses == sorted(chooses)
    assert not chooses[0]
    assert chooses[-1]


@pytest.mark.road
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cfg", "job"], "max_steps: "),
        (["--cfg", "job", "-p", "trainer", "trainer.max_steps=9"], "max_steps: 9"),
        (["--hydra-help"], "Hydra"),
        (["--info", "searchpath"], "structured://"),
    ],
)
def test_options_of_hydra_still_work(app: App, arguments: list[str], said: str) -> None:
    assert app(*arguments) == 0
    assert said in app.out
    assert app.jobs == []


def test_every_key_of_the_configuration_is_explained() -> None:
    from proassist_lit.config_help import field_docs

    docs = field_docs(RunConfig)
    assert docs["seed"] == "Seed of weights, order of training, and sub-sampling."
    assert docs["data"] == ""  # a section explains itself
