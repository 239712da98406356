"""Every command that a page gives would be taken: its flags, keys and values are known.

Those of the pages that tell how to add something are run, by ``test_extending``.
"""

from __future__ import annotations

import sys

import pytest
from torch.distributed.run import get_args_parser

from proassist_lit import cli, composition
from proassist_lit.commands import main
from proassist_lit.commands.trained import override
from proassist_lit.config import RunConfig
from proassist_lit.config_check import ConfigFiles
from tests.app import REPO_CONF, App
from tests.docs.pages import ROOT, all_commands

COMMANDS = [(page, words) for page, words in all_commands() if "/extending/" not in page]


def named(chosen: list[tuple[str, list[str]]]) -> list[object]:
    """As parameters."""
    return [pytest.param(words, id=" ".join(words)) for _, words in chosen]


TRAIN = [
    (page, words[words.index("train.py") + 1 :]) for page, words in COMMANDS if "train.py" in words
]
PROASSIST_LIT = [(page, words[1:]) for page, words in COMMANDS if words[0] == "proassist-lit"]
MODULES = [words for _, words in COMMANDS if words[:2] == ["python", "-m"]]


@pytest.fixture(scope="module")
def files() -> ConfigFiles:
    """The configuration files, read once."""
    found = ConfigFiles(REPO_CONF)
    found.check = lambda *_, **__: None  # every other test of the command line does it
    return found


@pytest.mark.parametrize("words", named(TRAIN))
def test_keys_of_the_documentation_are_known(
    words: list[str], files: ConfigFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (cli, composition):
        monkeypatch.setattr(module, "ConfigFiles", lambda *_, **__: files)
    reached = []
    monkeypatch.setattr(cli, "_run_hydra", lambda *arguments: reached.append(arguments))
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    cli.run_app(lambda config, run_dir: None, conf_dir=REPO_CONF)
    assert reached or "--help" in words


@pytest.mark.parametrize("words", named([one for one in COMMANDS if one[1][0] == "torchrun"]))
def test_torchrun_is_known_and_leaves_time_to_save(words: list[str]) -> None:
    found = get_args_parser().parse_args(words[1:])
    assert found.shutdown_timeout >= 300
    assert {"SIGTERM", "SIGUSR1"} < {*found.signals_to_handle.split(",")}


@pytest.mark.road
@pytest.mark.parametrize("words", named([(p, words) for p, words in TRAIN if "-m" not in words]))
def test_run_of_the_documentation_composes(app: App, words: list[str]) -> None:
    assert app(*words) == 0, app.err
    assert app.jobs or "--help" in words


@pytest.mark.parametrize("words", named(PROASSIST_LIT))
def test_command_of_the_documentation_is_taken(words: list[str]) -> None:
    if "--help" in words:
        with pytest.raises(SystemExit, match=r"^0$"):
            main.main(words)
        return
    arguments = main._parser().parse_args(words)
    overrides = getattr(arguments, "overrides", None) or getattr(arguments, "set", None) or []
    override(RunConfig(), overrides)


@pytest.mark.parametrize("words", MODULES, ids=" ".join)
def test_module_of_the_documentation_is_there(words: list[str]) -> None:
    name, path = words[2], ROOT.joinpath(*words[2].split("."))
    assert name == "pytest" or path.with_suffix(".py").exists() or path.is_dir()
    for argument in words[3:]:
        if name == "pytest" and argument.startswith("tests"):
            assert (ROOT / argument).exists()


def test_commands_are_found() -> None:
    found = [" ".join(words) for _, words in COMMANDS]
    assert "python train.py +experiment=per_turn" in found
    assert "proassist-lit evaluate outputs/latest evaluation.sweep_speak=[0.2,0.4,0.6]" in found
    assert {len(chosen) > 5 for chosen in (TRAIN, PROASSIST_LIT)} == {True}
