"""Reads one file of a config folder: its keys with their lines, its package, its defaults.

The rules are Hydra's and OmegaConf's, so that what is checked is what will be used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from proassist_lit.data.record_checks import show

try:
    from yaml import CSafeLoader as _SafeLoader  # libyaml's: all files are read at every start
except ImportError:  # PyYAML was built without it
    from yaml import SafeLoader as _SafeLoader  # type: ignore[assignment]


@dataclass(frozen=True)
class Default:
    """One entry of a ``defaults:`` list."""

    line: int
    group: str  # absolute, without a leading slash; "" for a file of the top folder
    option: object
    package: str | None
    override: bool
    optional: bool


@dataclass(frozen=True)
class ConfigFile:
    """One file of a config folder, parsed.

    Attributes:
        label: path as messages name it.
        group: folder inside the config folder, "" for the top.
        option: name inside the group.
        package: dotted section that the keys of the file belong to, "" for the whole.
        data: the keys, without ``defaults``.
        lines: line of every dotted key of ``data``.
        defaults: the defaults list.
        faults: what was already wrong with the file itself, with line numbers.
        title: its first line of comment, for the help.
    """

    label: str
    group: str
    option: str
    package: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)
    defaults: tuple[Default, ...] = ()
    faults: tuple[str, ...] = ()
    title: str = ""


class _Loader(_SafeLoader):
    """YAML in which a date is text, as OmegaConf reads it."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if not tag.endswith(":timestamp")]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_config_file(folder: Path, path: Path) -> ConfigFile:
    """Parse one file; what is wrong with it is kept in its ``faults``."""
    relative = path.relative_to(folder)
    label = f"{folder.name}/{relative.as_posix()}"
    group = relative.parent.as_posix().removeprefix(".")
    bare = ConfigFile(label, group, path.stem)
    if path.suffix != ".yaml":
        return _faulty(bare, f"{label}: is never read; give it the suffix .yaml.")
    try:
        text = path.read_text(encoding="utf-8")
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None or root.tag == "tag:yaml.org,2002:null":
            return bare
        if not isinstance(root, yaml.MappingNode):
            return _faulty(bare, f"{label}:1: must hold keys and values, got another document.")
        faults: list[str] = []
        lines: dict[str, int] = {}
        _walk(loader, root, "", lines, faults, label)
        data = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        return _faulty(bare, f"{label}{line}: no valid YAML: {error.problem}; mend the line.")
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        return _faulty(bare, f"{label}: cannot be read: {reason}; write it as UTF-8 YAML.")
    package, fault = _package(text, group)
    faults += [f"{label}:{fault}"] if fault else []
    defaults, default_faults = _defaults(data.pop("defaults", []), lines, group)
    faults += [f"{label}:{fault}" for fault in default_faults]
    return ConfigFile(
        label, group, path.stem, package, data, lines, defaults, tuple(faults), _title(text)
    )


def _faulty(file: ConfigFile, fault: str) -> ConfigFile:
    return ConfigFile(file.label, file.group, file.option, faults=(fault,))


def _walk(
    loader: _Loader,
    node: yaml.Node,
    key: str,
    lines: dict[str, int],
    faults: list[str],
    label: str,
) -> None:
    """Note the line of every key below ``node``; a key given twice is a fault."""
    if isinstance(node, yaml.SequenceNode):
        pairs = [(str(i), item, item.start_mark.line) for i, item in enumerate(node.value)]
    elif isinstance(node, yaml.MappingNode):
        names = [name.value for name, _ in node.value if isinstance(name, yaml.ScalarNode)]
        for name, _ in node.value:
            if isinstance(name, yaml.ScalarNode) and names.count(name.value) > 1:
                names.remove(name.value)
                line = name.start_mark.line + 1
                faults.append(f"{label}:{line}: {name.value!r} is given twice; drop one.")
        loader.flatten_mapping(node)  # anchors merged with <<
        pairs = [(str(name.value), item, name.start_mark.line) for name, item in node.value]
    else:
        return
    for name, item, line in pairs:
        inner = f"{key}.{name}" if key else name
        lines.setdefault(inner, line + 1)
        _walk(loader, item, inner, lines, faults, label)


def _package(text: str, group: str) -> tuple[str, str]:
    """Section of a file after its ``# @package`` line, and what is wrong with that line."""
    found, heading = group.replace("/", "."), True
    for number, line in enumerate(text.splitlines(), start=1):
        match = re.match(r"\s*#\s*@package\s*(.*)$", line)
        if match is None:
            heading = heading and not line.strip()
            continue
        name = match[1].strip()
        if not heading:
            return found, f"{number}: '# @package {name}' has no effect here; make it line 1."
        if not re.fullmatch(r"_global_|_group_|(_global_\.|_group_\.)?[a-z]\w*(\.\w+)*", name):
            return found, f"{number}: '@package {name}' is no package; _global_ is the whole."
        if name.startswith("_group_"):
            found = found + name.removeprefix("_group_")
        else:
            found = name.removeprefix("_global_").removeprefix(".")
    return found, ""


def _defaults(
    items: object, lines: Mapping[str, int], group: str
) -> tuple[tuple[Default, ...], list[str]]:
    """Parse a defaults list; (entries, faults without the file's name)."""
    if not isinstance(items, list):
        return (), [f"{lines['defaults']}: 'defaults' must be a list, got {show(items)}."]
    entries, faults = [], []
    for number, item in enumerate(items):
        line = lines[f"defaults.{number}"]
        if isinstance(item, str):
            if item != "_self_":
                name, _, package = item.partition("@")
                where, _, option = _absolute(name, group).rpartition("/")
                entries.append(Default(line, where, option, package or None, False, False))
            continue
        if (
            not isinstance(item, Mapping)
            or len(item) != 1
            or not all(isinstance(k, str) for k in item)
        ):
            faults.append(f"{line}: defaults: must be 'group: option', got {show(item)}.")
            continue
        key, option = next(iter(item.items()))
        *words, name = key.split()
        if not set(words) <= {"override", "optional"}:
            wrong = next(word for word in words if word not in ("override", "optional"))
            faults.append(f"{line}: defaults: {wrong!r} is no keyword; use override or optional.")
            continue
        name, _, package = name.partition("@")
        optional = "optional" in words or option is None
        entries.append(
            Default(
                line, _absolute(name, group), option, package or None, "override" in words, optional
            )
        )
    return tuple(entries), faults


def _title(text: str) -> str:
    comments = (line[1:].strip() for line in text.splitlines() if line.startswith("#"))
    return next((line for line in comments if line and not line.startswith("@")), "")


def _absolute(name: str, group: str) -> str:
    if name.startswith("/"):
        return name[1:]
    return f"{group}/{name}" if group else name
