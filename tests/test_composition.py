"""Configurations composed without a run, those of the repository among them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from proassist_lit.composition import compose
from proassist_lit.errors import ConfigError
from proassist_lit.objectives import ObjectiveKind
from tests.app import REPO_CONF


def chosen_by_none() -> list[Path]:
    """The file of the default run, and all that it does not use itself."""
    defaults = yaml.safe_load((REPO_CONF / "config.yaml").read_text())["defaults"]
    used = {f"{g}/{o}.yaml" for d in defaults if isinstance(d, dict) for g, o in d.items()}
    paths = sorted(REPO_CONF.rglob("*.yaml"))
    return [path for path in paths if path.relative_to(REPO_CONF).as_posix() not in used]


@pytest.mark.road
@pytest.mark.parametrize("path", chosen_by_none(), ids=lambda p: p.stem)
def test_every_yaml_of_the_repository_composes(path: Path) -> None:
    group = path.parent.relative_to(REPO_CONF).as_posix()
    choice = {
        ".": [],
        "experiment": [f"+experiment={path.stem}"],
        "sweep": [f"+sweep={path.stem}"],
        "debug": [f"+debug={path.stem}"],
    }.get(group)
    choice = choice if choice is not None else [f"{group}={path.stem}"]
    assert compose([*choice, "data.root=x"], conf_dir=REPO_CONF).data.root == "x"


def test_compose_gives_what_a_job_would_get() -> None:
    config = compose(["+experiment=per_token", "objective.rho=0.5"], conf_dir=REPO_CONF)
    assert (config.name, config.objective.kind) == ("per_token", ObjectiveKind.PER_TOKEN)
    assert config.objective.rho == 0.5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("objective.roh=0.5", r"objective\.roh=0\.5: .*objective\.rho"),
        ("+experiment=per_tokn", r"per_tokn.*per_token"),
        ("seed=[1", r"seed=\[1"),
        ("objective.rho=2", r"objective\.rho must be in \[0, 1\], got 2"),
    ],
)
def test_compose_refuses_what_a_run_would_refuse(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose([override], conf_dir=REPO_CONF)
