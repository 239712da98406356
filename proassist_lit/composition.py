"""The configuration that Hydra composes of files and overrides, checked against the schema.

Hydra and OmegaConf end here: what goes on is a ``RunConfig``.
"""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import make_dataclass, replace
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.conf import HydraConf
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser import types as hydra_types
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from proassist_lit.config import RunConfig
from proassist_lit.config_check import ConfigFiles, Override, check_debug_is_last
from proassist_lit.config_hints import is_mapping
from proassist_lit.config_schema import Schema, from_plain, plain_twin
from proassist_lit.errors import ConfigError
from proassist_lit.sweep.launcher import check_installed
from proassist_lit.sweep.settings import NAME, SearchSettings
from proassist_lit.sweep.space import file_override

_ACTIONS = {
    hydra_types.OverrideType.CHANGE: "set",
    hydra_types.OverrideType.ADD: "add",
    hydra_types.OverrideType.FORCE_ADD: "force",
    hydra_types.OverrideType.DEL: "delete",
}


def compose(overrides: Sequence[str], *, conf_dir: Path) -> RunConfig:
    """The configuration that ``overrides`` ask for, checked as ``run_app`` does; nothing is run.

    Args:
        overrides: as on the command line.
        conf_dir: folder of ``config.yaml`` and the config groups.

    Raises:
        ConfigError: something in the files or in ``overrides`` is wrong.
    """
    store_schema()
    try:
        check_composition(get_args_parser().parse_args([*overrides]), conf_dir, runs=False)
        with hydra.initialize_config_dir(str(conf_dir.resolve()), version_base="1.3"):
            return to_run_config(hydra.compose("config", [*overrides]))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(one_line(error)) from error


@functools.cache  # once a process; Hydra takes a copy of it for every configuration
def store_schema() -> None:
    """Tell Hydra which keys there are, with their types and defaults."""
    node = OmegaConf.structured(plain_twin(RunConfig()))
    for key, hint in Schema(RunConfig).settings():
        if is_mapping(hint):  # its keys are the user's, whom Hydra would ask for a '+'
            OmegaConf.set_struct(OmegaConf.select(node, key), False)
    ConfigStore.instance().store("base_config", node=node)


def check_composition(arguments: argparse.Namespace, conf_dir: Path, *, runs: bool = True) -> None:
    """Check all configuration files, then the overrides.

    Args:
        arguments: of Hydra's command line.
        conf_dir: folder of ``config.yaml`` and the config groups.
        runs: whether something is run with them.

    Raises:
        ConfigError: something in either is wrong, or not installed.
        HydraException: an override cannot be parsed.
    """
    parsed = OverridesParser.create().parse_overrides(arguments.overrides)
    extra = [arguments.config_path, arguments.config_dir]
    for item in parsed:
        value = item.value()
        if item.key_or_group == "hydra.searchpath" and isinstance(value, list):
            extra += [str(path).removeprefix("file://") for path in value]
    files = ConfigFiles(conf_dir, extra=[Path(path) for path in extra if path])
    schema = Schema(RunConfig, beside={"hydra": HydraConf})
    with_search = Schema(RunConfig, beside={"hydra": _SearchHydraConf})
    by_choice = {("hydra/sweeper", NAME): with_search}
    files.check(schema, by_choice=by_choice)
    overrides = [_plain_override(item, files.groups) for item in parsed]
    check_debug_is_last(overrides)
    choices = files.choices(overrides)
    if runs and not (is_multirun(arguments) or arguments.cfg or arguments.info):
        files.check_single_run(overrides)
    files.check_overrides(
        [*_params(files), *overrides],
        next((by_choice[choice] for choice in by_choice if choice in choices), schema),
    )
    for group, option in choices:
        check_installed(f"{group}={option}")


def is_multirun(arguments: argparse.Namespace) -> bool:
    """Whether Hydra will run several jobs: by -m, or as the mode is set."""
    return bool(arguments.multirun) or "hydra.mode=MULTIRUN" in arguments.overrides


_SearchHydraConf = make_dataclass(
    "_SearchHydraConf", [("sweeper", SearchSettings, None)], bases=(HydraConf,), kw_only=True
)
"""Hydra's own settings with those of our search where Hydra takes any sweeper's."""


def _params(files: ConfigFiles) -> Iterator[Override]:
    """What the files tell sweepers to vary, as if it stood on the command line."""
    parser = OverridesParser.create()
    for place, key, value in files.sweep_params():
        try:
            item = parser.parse_override(file_override(key, value))
        except HydraException as error:
            raise ConfigError(f"{place}: {key}={value}: {one_line(error)}") from error
        override = _plain_override(item, files.groups)
        yield replace(override, text=f"{place}: {override.text}")


def _plain_override(item: hydra_types.Override, groups: Mapping[str, list[str]]) -> Override:
    """Take Hydra's parse apart: ``config_check`` knows plain data only."""
    values: tuple[object, ...]
    inner: object = item._value  # no property gives the pattern of a glob
    if isinstance(inner, hydra_types.Glob):
        found = inner.filter(groups.get(item.key_or_group, []))
        values = tuple(found) or (
            item.get_value_string(),
        )  # a glob that finds nothing runs nothing
    elif item.is_discrete_sweep():
        values = tuple(item._convert_value(value) for value in item.sweep_iterator())
    elif item.value_type in (None, hydra_types.ValueType.INTERVAL_SWEEP):
        values = ()
    else:
        values = (item.value(),)
    return Override(
        text=item.input_line or item.key_or_group,
        action=_ACTIONS[item.type],
        key=item.key_or_group,
        package=item.package,
        values=values,
    )


def to_run_config(composed: DictConfig) -> RunConfig:
    """What Hydra composed, as the settings of a run.

    Raises:
        ConfigError: a value is missing or refers to nothing.
    """
    try:
        data = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(one_line(error)) from error
    assert isinstance(data, dict)
    return from_plain(RunConfig, {str(key): value for key, value in data.items()})


def one_line(error: Exception) -> str:
    """The message of Hydra or OmegaConf without what only their authors need."""
    text = str(error)
    if isinstance(error.__cause__, OmegaConfBaseException) and str(error.__cause__) not in text:
        text += f"\n{error.__cause__}"
    if isinstance(error, OverrideParseException) and error.override not in text:
        text = f"{error.override}: {text}"
    text = re.sub(r"full_key: (\S+)", r"(at \1)", text.partition("Config search path:")[0])
    dropped = ("See https://", "reference_type=", "object_type=", "^")
    lines = (line.strip() for line in text.splitlines())
    return " ".join(line for line in lines if line and not line.startswith(dropped))
