"""The command line of a run: Hydra, and what it leaves to be checked.

Hydra and OmegaConf end here: a job gets a ``RunConfig`` and a directory.
"""

from __future__ import annotations

import argparse
import functools
import os
import random
import re
import string
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import make_dataclass, replace
from pathlib import Path
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.conf import HydraConf
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser import types as hydra_types
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from proassist_lit.config import RunConfig
from proassist_lit.config_check import ConfigFiles, Override, check_debug_is_last
from proassist_lit.config_help import help_text
from proassist_lit.config_schema import (
    Schema,
    from_plain,
    is_mapping,
    plain_twin,
    read_config,
    write_config,
)
from proassist_lit.errors import ConfigError, ProAssistError
from proassist_lit.job_result import Pruned
from proassist_lit.rendezvous import Rendezvous
from proassist_lit.report.runs import multirun_table
from proassist_lit.run_directory import RunDirectory
from proassist_lit.sweep.job import is_first_process, run_once
from proassist_lit.sweep.launcher import check_installed, check_processes
from proassist_lit.sweep.settings import NAME, SearchSettings
from proassist_lit.sweep.space import file_override
from proassist_lit.sweep.trial import VARIABLE, Trial

Job = Callable[[RunConfig, Path], float | None]

_FULL_ERROR = "HYDRA_FULL_ERROR"
_RUN_DIR = "PROASSIST_LIT_RUN_DIR"
"""Tells the processes that a job starts on further devices where its run lies."""

_SHOWN = "proassist_lit_shown"
"""Attribute of an error that was shown already; it goes with the error from process to process."""

_ACTIONS = {
    hydra_types.OverrideType.CHANGE: "set",
    hydra_types.OverrideType.ADD: "add",
    hydra_types.OverrideType.FORCE_ADD: "force",
    hydra_types.OverrideType.DEL: "delete",
}


def run_app(job: Job, *, conf_dir: Path) -> None:
    """Run ``job`` as the command line says, once or for every value of a sweep.

    What a user can cause ends in one line on stderr for each fault and exit code 2, an interrupt
    in exit code 130; any other error of the job keeps its traceback. A directory that holds a run
    which is not gone on with is refused (``RunDirectory.check_begins``). The resolved configuration
    lies in the run directory as ``config.yaml`` before the job starts; if the job fails and leaves
    an earlier ``last.ckpt`` as it was, that one's is put back. In a multirun a table over the jobs
    so far (``table.csv``, ``.md``, ``.html``) is kept in the sweep's directory, and a job that came
    to its end there is not run again.

    Args:
        job: gets the checked configuration and the run directory; what it returns is the value
            that a sweep optimises.
        conf_dir: folder of ``config.yaml`` and the config groups.
    """
    failures: list[Exception] = []
    launch = Rendezvous.of_launch()
    try:
        if _is_further_process(launch):
            if run_dir := _run_dir_of_first(launch):
                with suppress(Pruned):  # the first process says so
                    job(read_config(RunConfig, run_dir / "config.yaml"), run_dir)
            return
        arguments = _parse_arguments()
        if arguments.help:
            files, program = ConfigFiles(conf_dir), f"python {Path(sys.argv[0]).name}"
            _write(help_text(program, files, RunConfig(), SearchSettings()))
            return
        if not (arguments.hydra_help or arguments.shell_completion):
            _check(arguments, conf_dir)
        _run_hydra(job, conf_dir, failures, launch)
        if failures:  # of a single run, kept back from Hydra, which would add a line of its own
            raise failures[0]
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except Exception as error:
        _end(error, failures)
    finally:
        if launch is not None:
            launch.close()


def _end(error: Exception, failures: Sequence[Exception]) -> NoReturn:
    """Leave with the message and exit code that ``error`` calls for."""
    shown = getattr(error, _SHOWN, False)  # of a job of a multirun
    is_of_job = shown or any(failure is error for failure in failures)
    is_users = isinstance(error, ProAssistError) or (not is_of_job and _is_of_hydra(error))
    if _wants_traceback() or not (is_users or shown):
        raise error
    if not shown:
        _show(error)
    sys.exit(2 if is_users else 1)


def _wants_traceback() -> bool:
    return os.environ.get(_FULL_ERROR) == "1"


def _show(error: Exception, *, prefix: str = "") -> None:
    lines = str(error).splitlines() if isinstance(error, ProAssistError) else [_one_line(error)]
    for line in lines:
        sys.stderr.write(f"error: {prefix}{line}\n")


def _one_line(error: Exception) -> str:
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


def _is_of_hydra(error: Exception) -> bool:
    """Whether Hydra refused something, rather than that a program is wrong."""
    if isinstance(error, HydraException | OmegaConfBaseException):
        return True
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    raised_in = frames[-1].f_globals.get("__name__", "").split(".")[0] if frames else ""
    # ValueError of a wrong option, OSError of a run directory that cannot be made
    return isinstance(error, ValueError | OSError) and raised_in in ("hydra", "pathlib", "os")


def compose(overrides: Sequence[str], *, conf_dir: Path) -> RunConfig:
    """The configuration that ``overrides`` ask for, checked as ``run_app`` does; nothing is run.

    Args:
        overrides: as on the command line.
        conf_dir: folder of ``config.yaml`` and the config groups.

    Raises:
        ConfigError: something in the files or in ``overrides`` is wrong.
    """
    _store_schema()
    try:
        _check(get_args_parser().parse_args([*overrides]), conf_dir)
        with hydra.initialize_config_dir(str(conf_dir.resolve()), version_base="1.3"):
            return _to_config(hydra.compose("config", [*overrides]))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_one_line(error)) from error


@functools.cache  # once a process; Hydra takes a copy of it for every configuration
def _store_schema() -> None:
    """Tell Hydra which keys there are, with their types and defaults."""
    node = OmegaConf.structured(plain_twin(RunConfig()))
    for key, hint in Schema(RunConfig).settings():
        if is_mapping(hint):  # its keys are the user's, whom Hydra would ask for a '+'
            OmegaConf.set_struct(OmegaConf.select(node, key), False)
    ConfigStore.instance().store("base_config", node=node)


def _parse_arguments() -> argparse.Namespace:
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        hint = "; give options such as -m before the first KEY=VALUE" if "=" in message else ""
        raise ConfigError(f"command line: {message}{hint}. --help lists what there is.")

    parser.error = refuse  # type: ignore[method-assign]
    return parser.parse_args()


def _check(arguments: argparse.Namespace, conf_dir: Path) -> None:
    """Check all configuration files, then the overrides."""
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
    files.check_overrides(
        [*_params(files), *overrides],
        next((by_choice[choice] for choice in by_choice if choice in choices), schema),
    )
    for group, option in choices:
        check_installed(f"{group}={option}")


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
            raise ConfigError(f"{place}: {key}={value}: {_one_line(error)}") from error
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


def _run_hydra(
    job: Job, conf_dir: Path, failures: list[Exception], launch: Rendezvous | None
) -> None:
    _store_schema()
    full_error = os.environ.get(_FULL_ERROR)

    @functools.wraps(job)  # Hydra names the log file after the file of ``job``
    def task(composed: DictConfig) -> float | None:
        settings = HydraConfig.get()
        is_multirun = settings.mode == RunMode.MULTIRUN
        run_dir = Path(settings.runtime.output_dir)
        try:
            config = _to_config(composed)
            with _environment({_FULL_ERROR: full_error, _RUN_DIR: str(run_dir)}):
                if is_multirun:
                    return _run_of_sweep(job, config, run_dir, settings)
                run = RunDirectory(run_dir)
                run.check_begins(config.resume)
                with run.config_of_checkpoint():
                    write_config(config, run_dir / "config.yaml")
                    if launch is not None:
                        launch.name(run_dir)
                    return job(config, run_dir)
        except Exception as error:
            if is_multirun:  # the other jobs go on, so say it now; Hydra ends with the first error
                with _environment({_FULL_ERROR: full_error}):
                    _show_of_job(error, run_dir)
                setattr(error, _SHOWN, True)
                raise
            failures.append(error)
            return None
        finally:
            if is_multirun and is_first_process():
                _write_table(_sweep_dir(settings))

    start = hydra.main(
        version_base="1.3", config_path=str(conf_dir.resolve()), config_name="config"
    )(task)
    with _environment({_FULL_ERROR: "1"}):  # Hydra then leaves the errors to us
        start()


def _run_of_sweep(job: Job, config: RunConfig, run_dir: Path, settings: HydraConf) -> float | None:
    check_processes(config.trainer, settings.launcher.get("_target_", ""))
    trial = Trial.of_job(settings, _sweep_dir(settings))
    with _environment({VARIABLE: trial.to_text() if trial else None}):
        return run_once(job, config, run_dir)


def _sweep_dir(settings: HydraConf) -> Path:
    return Path(settings.runtime.cwd, settings.sweep.dir)


def _short_id() -> str:
    """Five letters or digits; not from the seeded generator, which repeats."""
    return "".join(random.SystemRandom().choices(string.ascii_lowercase + string.digits, k=5))


# Cached in the configuration, as Hydra's own ${now:} is: one value for a run or a sweep. Here, as
# the processes that a launcher starts for jobs import this file and nothing else of ours.
OmegaConf.register_new_resolver("short_id", _short_id, use_cache=True, replace=True)


def _to_config(composed: DictConfig) -> RunConfig:
    try:
        data = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(_one_line(error)) from error
    assert isinstance(data, dict)
    return from_plain(RunConfig, {str(key): value for key, value in data.items()})


def _show_of_job(error: Exception, run_dir: Path) -> None:
    if isinstance(error, ProAssistError) and not _wants_traceback():
        _show(error, prefix=f"job {run_dir.name}: ")
    else:
        traceback.print_exception(error)


def _write_table(sweep_dir: Path) -> None:
    table = multirun_table(sweep_dir)
    for suffix in ("csv", "md", "html"):
        table.write(sweep_dir / f"table.{suffix}")
    # A file or pipe has no width to keep to.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@contextmanager
def _environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables (None: unset) and put them back."""
    before = {name: os.environ.get(name) for name in values}
    try:
        _set_environment(values)
        yield
    finally:
        _set_environment(before)


def _set_environment(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _is_further_process(launch: Rendezvous | None) -> bool:
    """Whether this process was started for a further device of a run.

    Hydra would make a directory of its own for every process.
    """
    by_parent = _RUN_DIR in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"
    return by_parent or (launch is not None and launch.rank > 0)


def _run_dir_of_first(launch: Rendezvous | None) -> Path | None:
    """Directory of the run, as its first process has it; None if there will be no run."""
    if launch is not None:
        return launch.wait()
    return Path(os.environ[_RUN_DIR])


def _write(text: str) -> None:
    sys.stdout.write(text)
