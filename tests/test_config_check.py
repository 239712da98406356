from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.conf import HydraConf

from proassist_lit.config import RunConfig
from proassist_lit.config_check import ConfigFiles, Override
from proassist_lit.config_schema import Schema
from proassist_lit.errors import ConfigError

REPO_CONF = Path(__file__).parents[1] / "conf"
SCHEMA = Schema(RunConfig, beside={"hydra": HydraConf})

CONF = {
    "config.yaml": "defaults:\n  - base_config\n  - data: toy\n  - trainer: quick\n  - _self_\n",
    "data/toy.yaml": "source: toy\n",
    "data/toy/small.yaml": "# Few.\nnum_train: 2\n",
    "trainer/quick.yaml": "max_steps: 3\n",
    "experiment/one.yaml": "# @package _global_\n# One.\nname: one\ntrainer:\n  max_steps: 4\n",
}


@pytest.fixture
def conf(tmp_path: Path) -> Callable[..., ConfigFiles]:
    def make(**changed: str | bytes) -> ConfigFiles:
        """The files above, with others in their place; ``__`` in a name is a slash."""
        folder = tmp_path / "conf"
        for name, text in (CONF | {k.replace("__", "/"): v for k, v in changed.items()}).items():
            path = folder / (name if "." in name else f"{name}.yaml")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return ConfigFiles(folder)

    return make


def test_the_files_of_the_repository_are_right() -> None:
    ConfigFiles(REPO_CONF).check(SCHEMA)


def test_right_files_pass(conf: Callable[..., ConfigFiles]) -> None:
    files = conf(
        trainer__odd="optimizer: {lr: 1e-3}\nmax_steps: ${seed}\ndevices: 2\n",
        trainer__base="optimizer: &o {lr: 1e-4}\n",
        data__dated="root: 2024-01-01\n",
        model__none="",
        experiment__two=(
            "# @package _global_\ndefaults:\n"
            "  - override /data: toy/small\n  - optional /model: no\n"
            "  - /trainer@trainer: odd\n  - /data: ${name}\n  - one\n  - _self_\n"
        ),
        part__lr="# @package trainer.optimizer\nlr: 0.1\n",
        data__pkg="# @package _group_\nseed: 3\n",
        data__pkg2="# @package _group_.toy\nseed: 3\n",
    )
    files.check(SCHEMA)
    assert files.groups["data"] == ["dated", "pkg", "pkg2", "toy", "toy/small"]
    assert files.groups["data/toy"] == ["small"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        # keys
        ("experiment/bad", "# @package _global_\ntrainer:\n  max_step: 3\n",
         "conf/experiment/bad.yaml:3: the section 'trainer' has no key 'max_step'; "
         "the nearest is 'trainer.max_steps'."),
        ("trainer/quick", "# Fast.\n\nmax_step: 3\n", "quick.yaml:3: .*'trainer.max_steps'"),
        ("config", "hydr: {}\n", "conf/config.yaml:1: there is no key or config group 'hydr'"),
        ("data/toy/small", "num_trian: 3\n", "small.yaml:1: .*'data.toy.num_train'"),
        ("trainer/quick", "optimizer:\n  - lr: 1\n", "quick.yaml:1: .*must be a section"),
        ("trainer/quick", "trainer:\n  max_steps: 3\n", "quick.yaml:1: .*no key 'trainer'"),
        ("trainer/quick", "max_steps: 1\nlog_every_steps: 2\nmax_steps: 3\n",
         "quick.yaml:[13]: 'max_steps' is given twice"),
        ("trainer/quick", "a: &a {beta: 1}\noptimizer:\n  <<: *a\n",
         "quick.yaml:1: .*'trainer.optimizer.beta2'"),
        # values
        ("trainer/quick", "max_epochs: 1\nmax_steps: many\n", "quick.yaml:2: trainer.max_s"),
        ("trainer/quick", "max_steps: 1.5\n", "trainer.max_steps must be int, got 1.5"),
        ("trainer/quick", "optimizer:\n  lr: fast\n", "quick.yaml:2: trainer.optimizer.lr must be"),
        ("data/toy", "dialogue:\n  user_types:\n    - no_talk\n    - talk\n",
         "toy.yaml:4: .*user_types.1 must be"),
        ("data/toy", "source: tyo\n", "toy.yaml:1: data.source .*nearest is 'toy'"),
        ("experiment/bad", "# @package _global_\nname: no\n", "bad.yaml:2: .*put quotes"),
        # packages
        ("experiment/bad", "name: x\n", "bad.yaml:1: there is no section 'experiment'.*_global_"),
        ("trianer/quick", "max_steps: 3\n", "trianer/quick.yaml:1: .*'trianer'.*folder 'trainer'"),
        ("experiment/bad", "# Bad.\n# @package _global_\nname: x\n", "bad.yaml:2: .*it line 1"),
        ("experiment/bad", "# @package _gobal_\nname: x\n", "bad.yaml:1: '@package _gobal_'"),
        ("part/lr", "# @package trainer.optimiser\nlr: 1\n", "no section 'trainer.optimiser'"),
        # defaults
        ("config", "defaults:\n  - base_config\n  - dta: toy\n",
         "config.yaml:3: defaults: there is no config group 'dta'; the nearest is 'data'"),
        ("config", "defaults:\n  - base_confg\n", "config.yaml:2: .*'base_confg'.*'base_config'"),
        ("config", "defaults:\n  - trainer: quik\n", "config.yaml:2: .*'quik'; .*'quick'"),
        ("config", "defaults:\n  - trainer: [quick, quik]\n", "'quik'"),
        ("config", "defaults:\n  - trainer@trianer: quick\n", "no section 'trianer'"),
        ("config", "defaults:\n  - optinal trainer: quick\n", "'optinal' is no keyword"),
        ("config", "defaults:\n  - optional trianer: quick\n", "'trianer'.*'trainer'"),
        ("config", "defaults: quick\n", "config.yaml:1: 'defaults' must be a list"),
        ("config", "defaults:\n  - {data: toy, trainer: quick}\n", "config.yaml:2: .*group: op"),
        ("config", "defaults:\n  - trainer: 3\n", "name a file of the config group"),
        ("experiment/bad", "# @package _global_\ndefaults:\n  - override trainer: quick\n",
         "bad.yaml:3: .*'experiment/trainer'; the nearest is '/trainer'"),
        # files
        ("trainer/quick", "max_steps: [\n", "quick.yaml:2: no valid YAML"),
        ("trainer/quick", "- 3\n", "quick.yaml:1: must hold keys"),
        ("trainer/quick", b"name: \xff\n", "quick.yaml: cannot be read"),
        ("trainer/other.yml", "max_steps: 3\n", "other.yml: is never read"),
    ],
)  # fmt: skip
def test_a_fault_in_a_file_is_named(
    conf: Callable[..., ConfigFiles], name: str, text: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        conf(**{name: text}).check(SCHEMA)
    lines = str(caught.value).splitlines()
    assert any(re.search(said, line) for line in lines), lines
    if not name.startswith("config") and "given twice" not in said and "beta2" not in said:
        assert len(lines) == 1


def test_all_faults_of_all_files_are_said_at_once(conf: Callable[..., ConfigFiles]) -> None:
    with pytest.raises(ConfigError) as caught:
        conf(trainer__quick="a: 1\nb: 2\n", data__toy="c: 3\n").check(SCHEMA)
    assert len(str(caught.value).splitlines()) == 3


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no directory"):
        ConfigFiles(tmp_path / "none")


def test_extra_folders_add_options_and_are_checked(
    conf: Callable[..., ConfigFiles], tmp_path: Path
) -> None:
    conf()
    for name in ("experiment/mine.yaml", "unrelated/x.yaml"):
        (tmp_path / "extra" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "extra" / name).write_text("# @package _global_\nnmae: x\n")
    files = ConfigFiles(tmp_path / "conf", extra=[tmp_path / "extra"])
    assert files.groups["experiment"] == ["mine", "one"]
    with pytest.raises(ConfigError) as caught:
        files.check(SCHEMA)
    assert str(caught.value).startswith("extra/experiment/mine.yaml:2: ")
    assert len(str(caught.value).splitlines()) == 1  # the other folder is none of ours


def override(key: str, *values: object, action: str = "set", package: str | None = None):
    return Override(text=f"<{key}>", action=action, key=key, package=package, values=values)


@pytest.mark.parametrize(
    "given",
    [
        override("trainer.max_steps", 3),
        override("trainer.max_steps", 3, "4", "${seed}"),
        override("trainer", "quick"),
        override("trainer", "quick.yaml", package="trainer"),
        override("trainer", {"max_steps": 3}),
        override("trainer", action="delete"),
        override("experiment", "one", action="add"),
        override("experiment", ["one"], action="add"),
        override("experiment", "one", action="add", package="_global_"),
        override("data", "toy/small", package="data"),
        override("data.dialogue.user_types.0", "no_talk"),
        override("data.dialogue.user_types", ["no_talk"]),
        override("hydra/launcher", "basic"),
        override("seed"),
    ],
    ids=lambda o: o.text,
)
def test_right_overrides_pass(conf: Callable[..., ConfigFiles], given: Override) -> None:
    conf().check_overrides([given], SCHEMA)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (override("experimnt", "one", action="add"), "'experimnt'; the nearest is 'experiment'"),
        (override("foo", 1, action="add"), "no key or config group 'foo'; the nearest is"),
        (override("trainer.max_step", 3), "the nearest is 'trainer.max_steps'"),
        (override("trainer.max_step", 3, action="force"), "'trainer.max_steps'"),
        (override("trainr.max_steps", 3), "'trainr'; the nearest is 'trainer'"),
        (override("data.toy.num_trian", 3), "'data.toy.num_train'"),
        (override("max_steps", 3), "'trainer.max_steps'"),
        (override("dat", action="delete"), "'dat'; the nearest is 'data'"),
        (override("trainer", "quick", "quik"), "no option 'quik'; the nearest is 'quick'"),
        (override("trainer", None), "name a file"),
        (override("trainer", "quik", action="delete"), "no option 'quik'"),
        (override("trainer", {"max_step": 3}), "'trainer.max_steps'"),
        (override("experiment", "on", action="add"), "no option 'on'; the nearest is 'one'"),
        (override("experiment", ["one", "on"], action="add"), "no option 'on'"),
        (override("experiment", "one"), r"write \+"),
        (override("experiment", "one", action="force"), "one '[+]', not two"),
        (override("data/ty", "small"), "no config group 'data/ty'; the nearest is 'data/toy'"),
        (override("trainr", "quick", package="x"), "no config group 'trainr'"),
        (override("trainer", "quick", package="trainr"), "no section 'trainr'"),
        (override("seed", 1, "x"), "seed must be int, got 'x'"),
        (override("seed.x", 1), "no section but int"),
        (override("stream.strategy", "drop_al"), "the nearest is 'drop_all'"),
    ],
    ids=lambda o: getattr(o, "text", ""),
)
def test_wrong_overrides_are_named(
    conf: Callable[..., ConfigFiles], given: Override, said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        conf().check_overrides([given, override("seed", 1)], SCHEMA)
    assert str(caught.value).startswith(f"{given.text}: ")
    assert len(str(caught.value).splitlines()) == 1
