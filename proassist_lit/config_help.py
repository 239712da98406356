"""The text of ``--help``: experiments, config groups, and every key with its meaning."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from proassist_lit.config_check import ConfigFiles
from proassist_lit.config_file import ConfigFile
from proassist_lit.config_hints import describe
from proassist_lit.config_schema import to_plain

_INDENT = 6
_LISTED = ("experiment", "sweep", "debug")  # groups whose files have a line each


def help_text(
    program: str, files: ConfigFiles, defaults: Any, search: Any, *, width: int = 100
) -> str:
    """Everything that can be asked for on the command line.

    Args:
        program: the command, say ``python train.py``.
        files: the configuration files.
        defaults: the configuration with its default values.
        search: settings of a search with their default values.
        width: characters a line.
    """
    experiments = _experiments(files)
    sweeps = [file for file in files.files if file.group == "sweep"]
    presets = [file for file in files.files if file.group == "debug"]
    first = experiments[0].option if experiments else "NAME"
    groups = {name: options for name, options in files.groups.items() if name}
    parts = [
        "Train a proactive streaming assistant and evaluate it on streams.",
        f"Usage: {program} [+experiment=NAME] [GROUP=OPTION ...] [KEY=VALUE ...]",
        _block(
            f"{program} +experiment={first} seed=2     one run; it lies in outputs/\n"
            f"{program} -m +experiment={first} seed=1,2,3     one run for each value\n"
            f"{program} -m +experiment={first} +sweep=optuna     a search; again with the same "
            "hydra.sweep.dir=DIR it goes on\n"
            f"{program} +experiment={first} --cfg job     print the settings and stop\n"
            f"{program} +experiment={first} hydra.run.dir=DIR resume=auto     go on in DIR, or "
            "begin there\n"
            f"{program} --hydra-help     all options of Hydra"
        ),
        "Experiments (+experiment=NAME), those that need no data first:",
        _columns([(file.option, file.title) for file in experiments]),
        "Sweeps (-m +sweep=NAME):",
        _columns([(file.option, file.title) for file in sweeps]),
        "Presets for looking for faults (+debug=NAME, after the experiment):",
        _columns([(file.option, file.title) for file in presets]),
        "Config groups (GROUP=OPTION):",
        _columns([(n, ", ".join(o)) for n, o in groups.items() if n not in _LISTED]),
        "Keys (KEY=VALUE), with the values they have where no file of conf/ says otherwise:",
        "\n\n".join((*_section(defaults, "", width), *_section(search, "hydra.sweeper", width))),
        f"Misspelt keys are refused. With HYDRA_FULL_ERROR=1 {program} shows where errors arise.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def field_docs(cls: type) -> dict[str, str]:
    """The docstring below each field of a dataclass, on one line; empty for a field without."""
    docs = dict.fromkeys((f.name for f in fields(cls)), "")
    for base in reversed(cls.__mro__):
        if not is_dataclass(base):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):  # made at run time, or without its source
            continue
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for node, below in itertools.pairwise(body):
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            ):
                docs[node.target.id] = " ".join(below.value.value.split())
    return docs


def _experiments(files: ConfigFiles) -> list[ConfigFile]:
    """The experiments, first those on the data and the model of the default run.

    They need nothing that is not here, so examples may name the first: that of the default
    objective, the quick start, if there is one.
    """
    usual = {d.group: d.option for file in files.files if not file.group for d in file.defaults}

    def needs_more(file: ConfigFile) -> bool:
        chosen = {d.group: d.option for d in file.defaults if d.group in ("data", "model")}
        return any(usual.get(group) != option for group, option in chosen.items())

    experiments = [file for file in files.files if file.group == "experiment"]
    return sorted(experiments, key=lambda e: (needs_more(e), e.option != usual.get("objective")))


def _section(config: Any, key: str, width: int) -> Iterator[str]:
    """One text for the section itself, then one for each section inside it."""
    docs, hints = field_docs(type(config)), typing.get_type_hints(type(config), include_extras=True)
    purpose = " ".join((inspect.getdoc(type(config)) or "").split("\n\n")[0].split())
    lines, inner = [f"{key or 'run'}: {purpose}"], []
    for f in fields(config):
        if f.name.startswith("_"):
            continue
        value, name = getattr(config, f.name), f"{key}.{f.name}" if key else f.name
        if is_dataclass(value):
            inner.append((value, name))
            continue
        lines.append(f"  {name}: {describe(hints[f.name])} = {_value(value)}")
        lines += textwrap.wrap(
            docs[f.name],
            width=width,
            initial_indent=" " * _INDENT,
            subsequent_indent=" " * _INDENT,
            break_on_hyphens=False,
        )
    yield "\n".join(lines)
    for value, name in inner:
        yield from _section(value, name, width)


def _value(value: object) -> str:
    plain = to_plain(value)
    if isinstance(plain, bool) or plain is None:
        return {True: "true", False: "false", None: "null"}[plain]
    if isinstance(plain, list):
        return f"[{', '.join(map(_value, plain))}]"
    if isinstance(plain, Mapping):
        return f"{{{', '.join(f'{k}: {_value(v)}' for k, v in plain.items())}}}"
    return str(plain) if plain != "" else '""'


def _block(text: str) -> str:
    rows = [tuple(part.strip() for part in line.split("     ")) for line in text.splitlines()]
    return _columns(rows)


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    wide = max((len(row[0]) for row in rows), default=0)
    return "\n".join(f"  {left:<{wide}}  {right}".rstrip() for left, right in rows)
