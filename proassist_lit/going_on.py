"""A run that goes on: how it is told to, and what it began with."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from proassist_lit.config import RunConfig
from proassist_lit.config_schema import read_config, to_plain
from proassist_lit.errors import ConfigError
from proassist_lit.rendezvous import Rendezvous
from proassist_lit.run_directory import LATEST, RunDirectory, follow_latest

_MANY = 5
"""Settings that are named; of more, how many."""


def command_of_run(*others: str) -> str:
    """The command line of the run under way; of a job of a sweep, its own.

    Args:
        others: settings in the place of those that were given for the same keys, or beside them.

    Returns:
        ``others`` alone if Hydra did not start the run.
    """
    if not HydraConfig.initialized():
        return shlex.join(others)
    settings = HydraConfig.get()
    keys = {*map(_key, others)}
    given = [
        *(f"--config-dir={s.path}" for s in settings.runtime.config_sources
          if s.provider == "command-line"),
        *(text for text in settings.overrides.hydra if _key(text) == "hydra.searchpath"),
        *(text for text in settings.overrides.task if _key(text) not in keys),
    ]  # fmt: skip
    return shlex.join(["python", "train.py", *given, *others])


def override(key: str, path: Path) -> str:
    """``key=path`` as Hydra reads it: with a brace or an equals sign a path is to be quoted."""
    if re.fullmatch(r"[\w./-]+( [\w./-]+)*", str(path)):
        return f"{key}={path}"
    quoted = str(path).replace("'", r"\'")
    return f"{key}='{quoted}'"


def go_on_command(run_dir: Path) -> str:
    """What goes on with the run under way when it has stopped; after what started its processes."""
    command = command_of_run(override("hydra.run.dir", run_dir), "resume=auto")
    return command if Rendezvous.of_launch() is None else command.removeprefix("python ")


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+")


def check_begins_from(overrides: Iterable[str]) -> None:
    """Refuse to begin the jobs of a multirun from the link that each of them moves.

    Args:
        overrides: as on the command line.

    Raises:
        ConfigError: one of them names the link to the latest run.
    """
    for text in overrides:
        value = text.partition("=")[2].strip("'\"")
        if _key(text) in ("resume", "model.init_from") and LATEST in Path(value).parts:
            raise ConfigError(
                f"{text}: each job moves that link when it begins; name what it leads to now, "
                f"{_key(text)}={follow_latest(Path(value))}."
            )


def settled(config: RunConfig, before: RunConfig | None = None) -> RunConfig:
    """What it begins from is named for good: the link to the latest run moves when this begins.

    Args:
        config: as it is given.
        before: as it was when the run began that goes on here.
    """
    init_from = config.model.init_from
    if before is not None and LATEST in Path(init_from).parts:
        init_from = before.model.init_from  # what the link led to then
    model = replace(config.model, init_from=_without_latest(init_from))
    return replace(config, resume=_without_latest(config.resume), model=model)


def _without_latest(name: str) -> str:
    return str(follow_latest(Path(name))) if LATEST in Path(name).parts else name


def begun_with(run_dir: Path) -> RunConfig | None:
    """The settings of the run that was begun in a directory.

    Returns:
        None if there is no checkpoint, or if they are of another version, which is said.
    """
    config_file = run_dir / "config.yaml"
    if not config_file.exists() or not RunDirectory(run_dir).last_checkpoint.exists():
        return None
    try:
        return read_config(RunConfig, config_file)
    except ConfigError as error:
        sys.stderr.write(f"{error} What the run goes on with is not compared with it.\n")
        return None


def check_goes_on(config: RunConfig, before: RunConfig, run_dir: Path) -> None:
    """Say which settings are not those that the run in a directory began with.

    Raises:
        ConfigError: it began under another name, as the run of another experiment.
    """
    if config.name != before.name:
        raise ConfigError(
            f"{run_dir}: holds a run named {before.name}, and this one is {config.name}; give what "
            f"was given there (its experiment: {run_dir / 'config.yaml'} has all settings), or "
            f"name={before.name} if it is to go on with other settings."
        )
    if changed := differences(config, before):
        more = f" and {len(changed) - _MANY} more" if len(changed) > _MANY else ""
        sys.stderr.write(
            f"{run_dir}: goes on with {', '.join(changed[:_MANY])}{more} as it began.\n"
        )


def differences(now: RunConfig, then: RunConfig) -> list[str]:
    """What another configuration has, ``KEY value, not value`` each; ``resume`` is left out."""
    new, old = (_flat(to_plain(replace(config, resume="none"))) for config in (now, then))
    return [
        f"{key} {new.get(key)!r}, not {old.get(key)!r}"
        for key in new | old
        if new.get(key) != old.get(key)
    ]


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, Mapping) and value:
            settings |= _flat(value, f"{prefix}{name}.")
        else:
            settings[prefix + name] = value
    return settings
