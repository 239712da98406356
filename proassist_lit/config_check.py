"""Checks every configuration file and the command line, so that no misspelling slips through.

Hydra drops some mistakes without a word (``+foo=1``) and finds others only in files that a run
happens to use. Here all files are read at every start, with line numbers. Nothing here knows
Hydra; ``composition`` hands over plain data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from proassist_lit.config_file import ConfigFile, Default, read_config_file
from proassist_lit.config_schema import Schema
from proassist_lit.data.record_checks import nearest, show
from proassist_lit.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Override:
    """One argument of the command line, taken apart.

    Attributes:
        text: as it was typed.
        action: ``set`` (key=value), ``add`` (+), ``force`` (++) or ``delete`` (~).
        key: dotted key, or config group.
        package: what follows ``@``; None without.
        values: every value that the argument may take; none if it is not known.
    """

    text: str
    action: str
    key: str
    package: str | None = None
    values: tuple[object, ...] = ()


class ConfigFiles:
    """The YAML files of the config folders.

    Args:
        folder: the program's own folder; every file of it is read.
        extra: further folders of the user; only their groups of the same names are read.
        stored: names at the top that are no files (the schema itself).

    Raises:
        ConfigError: ``folder`` is missing.
    """

    def __init__(
        self, folder: Path, *, extra: Sequence[Path] = (), stored: Sequence[str] = ("base_config",)
    ) -> None:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: is no directory; the configuration files belong there.")
        self.folder = folder
        self._stored = tuple(stored)
        self.files = [read_config_file(folder, path) for path in _yaml_files(folder)]
        groups = {file.group for file in self.files} - {""}
        for other in extra:
            self.files += [
                read_config_file(other, path)
                for group in sorted(groups)
                for path in _yaml_files(other / group)
            ]

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Options of every group; those of a nested folder also under the outer group."""
        found: dict[str, list[str]] = {"": list(self._stored)}
        for file in self.files:
            parts = file.group.split("/") if file.group else []
            for depth in range(1, len(parts) + 1):
                option = "/".join([*parts[depth:], file.option])
                found.setdefault("/".join(parts[:depth]), []).append(option)
            if not parts:
                found[""].append(file.option)
        return {group: sorted(options) for group, options in found.items()}

    def check(
        self, schema: Schema, *, by_choice: Mapping[tuple[str, str], Schema] | None = None
    ) -> None:
        """Check every file.

        Args:
            schema: every key there is.
            by_choice: by (group, option), what takes its place in files whose defaults choose
                that option.

        Raises:
            ConfigError: all faults, one a line, each with file, line and the nearest valid key.
        """
        faults: list[str] = []
        for file in self.files:
            own = ((by_choice or {}).get((d.group, str(d.option))) for d in file.defaults)
            faults += self._faults(file, next(filter(None, own), schema))
        if faults:
            raise ConfigError("\n".join(faults))

    def choices(self, overrides: Sequence[Override]) -> set[tuple[str, str]]:
        """What the command line chooses, as (group, option), with what the chosen files choose."""
        found = {(o.key, value) for o in overrides for value in o.values if isinstance(value, str)}
        for file in self.files:
            if (file.group, file.option) in found:
                found |= {(d.group, str(d.option)) for d in file.defaults}
        return found

    def sweep_params(self) -> Iterator[tuple[str, str, object]]:
        """``hydra.sweeper.params`` of every file: (file and line, key, value)."""
        for file in self.files:
            for key, value in _sweep_params(file).items():
                line = _line_of(file, f"hydra.sweeper.params.{key}")
                yield f"{file.label}{line}", str(key), value

    def check_single_run(self, overrides: Sequence[Override]) -> None:
        """Refuse a sweep for a run alone, unless it gets what one of its jobs would.

        Raises:
            ConfigError: the sweep varies keys, and none of them is given.
        """
        given, choices = {override.key for override in overrides}, self.choices(overrides)
        for file in self.files:
            keys = _sweep_params(file).keys()
            is_asked = file.group == "sweep" and ("sweep", file.option) in choices
            if is_asked and keys and not keys & given:
                raise ConfigError(
                    f"+sweep={file.option} varies {', '.join(keys)} over several jobs, and this is "
                    "a single run; add -m before the first KEY=VALUE, or give their values."
                )

    def _faults(self, file: ConfigFile, schema: Schema) -> Iterator[str]:
        yield from file.faults
        if not (file.package or file.group) or schema.is_section(file.package):
            for key, message in schema.faults(file.data, file.package):
                inner = key.removeprefix(file.package).removeprefix(".")
                yield f"{file.label}{_line_of(file, inner)}: {message}"
        elif file.data and not file.faults:
            yield (
                f"{file.label}:1: there is no section {file.package!r} for its keys; begin the "
                f"file with '# @package _global_', or move it to the folder "
                f"{nearest(file.package, _sections(schema))!r}."
            )
        for default in file.defaults:
            if message := self._default_fault(default, file, schema):
                yield f"{file.label}:{default.line}: defaults: {message}"

    def _default_fault(self, default: Default, file: ConfigFile, schema: Schema) -> str:
        group = default.group
        if group.split("/")[0] == "hydra":
            return ""  # Hydra's own groups come from its plugins; it names what it does not find
        if group not in self.groups:
            absolute = group.removeprefix(f"{file.group}/")
            known = absolute if absolute in self.groups else nearest(absolute, self._group_names)
            slash = "/" if file.group else ""
            return f"there is no config group {group!r}; the nearest is '{slash}{known}'."
        if default.package and not _is_package(default.package, file.package, schema):
            return f"there is no section {default.package!r} for '@{default.package}'."
        if default.optional:
            return ""
        return self._option_fault(group, default.option)

    @property
    def _group_names(self) -> list[str]:
        return [group for group in self.groups if group]

    def _option_fault(self, group: str, option: object) -> str:
        """What is wrong with choosing ``option`` (a name or several) from ``group``."""
        for name in option if isinstance(option, list) else [option]:
            if not isinstance(name, str):
                return f"name a file of the config group {group!r}, got {show(name)}."
            if "${" in name or name == "???" or name == "_self_":
                continue
            options = self.groups[group]
            if name.removesuffix(".yaml") not in options:
                place = f"the config group {group!r}" if group else f"{self.folder.name}/"
                return (
                    f"{place} has no option {name!r}; the nearest is {nearest(name, options)!r} "
                    f"(there are {', '.join(options)})."
                )
        return ""

    def check_overrides(self, overrides: Sequence[Override], schema: Schema) -> None:
        """Check the command line.

        Raises:
            ConfigError: all faults, one a line, each with the argument and the nearest valid key.
        """
        faults = [
            f"{override.text}: {fault}"
            for override in overrides
            for fault in self._override_faults(override, schema)
        ]
        if faults:
            raise ConfigError("\n".join(faults))

    def _override_faults(self, override: Override, schema: Schema) -> Iterator[str]:
        key = override.key
        is_mapping = any(isinstance(value, Mapping) for value in override.values)
        if key.startswith("hydra/"):
            return  # see _default_fault
        if key in self.groups and not is_mapping:
            yield from filter(None, [self._choice_fault(override, schema)])
        elif "/" in key or override.package is not None:
            names = self._group_names
            yield f"there is no config group {key!r}; the nearest is {nearest(key, names)!r}."
        else:
            name = key.split(".")[0]
            top = {*schema.hint("").__dataclass_fields__, "hydra"}
            if name not in top:
                yield schema.unknown("", key if name == key else name, also=self._group_names)
                return
            try:
                schema.hint(key)
            except ConfigError as error:
                yield str(error)
                return
            for value in override.values:
                if override.action != "delete":
                    yield from (message for _, message in schema.faults(value, key))

    def _choice_fault(self, override: Override, schema: Schema) -> str:
        if override.action == "force":
            return "a config group is added with one '+', not two."
        package = override.package
        if package and not _is_package(package, "", schema):
            return f"there is no section {package!r} for '@{package}'."
        for value in override.values:
            if fault := self._option_fault(override.key, value):
                return fault
        if override.action == "set" and override.key not in self._default_groups:
            return (
                f"no file chooses a {override.key!r} that could be changed; write +{override.text}"
            )
        return ""

    @cached_property
    def _default_groups(self) -> set[str]:
        return {d.group for file in self.files for d in file.defaults if not d.override}


def check_debug_is_last(overrides: Sequence[Override]) -> None:
    """Refuse a preset that an experiment would take back: of two files the later one counts.

    Raises:
        ConfigError: an experiment or a sweep stands behind a debug preset.
    """
    presets = [item for item in overrides if item.key == "debug"]
    later = [item for item in overrides if item.key in ("experiment", "sweep")]
    for preset in presets:
        for item in later:
            if overrides.index(item) > overrides.index(preset):
                raise ConfigError(
                    f"{preset.text}: stands before {item.text}, whose settings would replace its "
                    f"own; write {item.text} {preset.text}"
                )


def _yaml_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in (".yaml", ".yml")
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _sections(schema: Schema) -> list[str]:
    return sorted({key.split(".")[0] for key, _ in schema.settings() if "." in key})


def _sweep_params(file: ConfigFile) -> Mapping[str, object]:
    """``hydra.sweeper.params`` of a file."""
    part: object = file.data if not file.package else None
    for name in ("hydra", "sweeper", "params"):
        part = part.get(name) if isinstance(part, Mapping) else None
    return part if isinstance(part, Mapping) else {}


def _line_of(file: ConfigFile, key: str) -> str:
    """``:7`` for a key, or for the part of it that has a line."""
    while key and key not in file.lines:
        key = key.rpartition(".")[0]
    return f":{file.lines[key]}" if key else ":1"


def _is_package(package: str, inside: str, schema: Schema) -> bool:
    package = package.rpartition(":")[2]
    if package.split(".")[0] in ("_global_", "_here_", "_group_"):
        inside = "" if package.startswith("_global_") else inside
        package = package.partition(".")[2]
    full = ".".join(filter(None, (inside, package)))
    return not full or schema.is_section(full)
