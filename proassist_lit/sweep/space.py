"""What a search varies, in Hydra's grammar of overrides, and what is the same in every trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from hydra.core.override_parser import types as hydra_types
from hydra.core.override_parser.overrides_parser import OverridesParser

from proassist_lit.config import RunConfig
from proassist_lit.config_schema import Schema
from proassist_lit.errors import ConfigError

if TYPE_CHECKING:
    from optuna.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Choices:
    """One of several values.

    Attributes:
        texts: the values as overrides spell them (``null``, ``'a b'``): they keep their type.
    """

    texts: tuple[str, ...]

    def suggest(self, trial: Trial, name: str) -> str:
        """A value as an override spells it."""
        return str(trial.suggest_categorical(name, self.texts))


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """A number between two others, both included.

    Attributes:
        low: the smallest.
        high: the largest.
        whole: whether it is an int.
        log: whether orders of magnitude count rather than differences.
        step: distance of neighbours; None: any number between, of whole ones every one.
    """

    low: float
    high: float
    whole: bool
    log: bool = False
    step: float | None = None

    def suggest(self, trial: Trial, name: str) -> str:
        """A value as an override spells it, with all its digits."""
        if self.whole:
            low, high, step = int(self.low), int(self.high), int(self.step or 1)
            return str(trial.suggest_int(name, low, high, step=step, log=self.log))
        return repr(trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log))


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """What is varied, and what is fixed.

    Attributes:
        dimensions: what is varied, by the left side of the override (``+experiment``).
        overrides: all, in the order given; of what is varied the left side.
    """

    dimensions: Mapping[str, Choices | Numbers]
    overrides: tuple[str, ...]

    @property
    def fixed(self) -> tuple[str, ...]:
        """What is the same in every trial."""
        return tuple(text for text in self.overrides if text not in self.dimensions)

    @classmethod
    def of(cls, params: Mapping[str, object], arguments: Sequence[str]) -> SearchSpace:
        """Read the space.

        Args:
            params: ``hydra.sweeper.params`` of a file.
            arguments: overrides of the command line; they win.

        Raises:
            ConfigError: something cannot be searched, or nothing is searched; all faults.
        """
        texts = [file_override(key, value) for key, value in params.items()]
        parsed = OverridesParser.create().parse_overrides([*texts, *arguments])
        items = {_name(item): item for item in parsed}  # the later one wins
        dimensions: dict[str, Choices | Numbers] = {}
        overrides, faults = [], []
        for item in items.values():
            text = item.input_line or item.key_or_group
            try:
                if item.is_sweep_override():
                    key = item.get_key_element()
                    dimensions[key] = _dimension(item)
                    overrides.append(key)
                else:
                    overrides.append(text)
            except ConfigError as error:
                faults.append(f"{text}: {error}")
        if not dimensions and not faults:
            faults.append(
                "hydra.sweeper: nothing is searched; give a key several values, such as "
                "'trainer.optimizer.lr=tag(log,interval(1e-4,1e-2))'."
            )
        if faults:
            raise ConfigError("\n".join(faults))
        return cls(dimensions=dimensions, overrides=tuple(overrides))

    def suggest(self, trial: Trial) -> list[str]:
        """What a trial varies, as overrides; of a trial that has values already, these."""
        return [
            f"{key}={dimension.suggest(trial, key.lstrip('+'))}"
            for key, dimension in self.dimensions.items()
        ]

    def fill(self, drawn: Sequence[str]) -> list[str]:
        """All overrides of a trial, in the order given: of two files the later one counts.

        Args:
            drawn: what it varies, from ``suggest``.
        """
        by_key = {text.partition("=")[0]: text for text in drawn}
        return [by_key.get(text, text) for text in self.overrides]


def file_override(key: str, value: object) -> str:
    """An entry of ``hydra.sweeper.params`` as the command line would have it."""
    text = value if isinstance(value, str) else hydra_types.Transformer.str(value)  # type: ignore[arg-type]
    return f"{key}={text}"


def _name(item: hydra_types.Override) -> str:
    return f"{item.key_or_group}@{item.package}"


def _dimension(item: hydra_types.Override) -> Choices | Numbers:
    value: object = item._value  # value() hides a glob
    if isinstance(value, hydra_types.ChoiceSweep):
        texts = [hydra_types.Transformer.str(element) for element in value.list]
        return Choices(texts=tuple(dict.fromkeys(texts)))
    if isinstance(value, hydra_types.RangeSweep):
        return _range(value)
    if isinstance(value, hydra_types.IntervalSweep):
        return _interval(value, item.key_or_group)
    raise ConfigError("a search takes no glob; name the options, separated by commas.")


def _range(value: hydra_types.RangeSweep) -> Numbers:
    if value.step == 0:
        raise ConfigError("its step is 0; give another one.")
    numbers = value.range()
    count = len(numbers) if isinstance(numbers, range) else len(list(numbers))
    if not count:
        raise ConfigError("holds no number; the first must come before the last.")
    step = Decimal(str(value.step))
    first = Decimal(str(value.start))
    ends = sorted((first, first + step * (count - 1)))
    log = _is_log(value, float(ends[0]))
    whole = isinstance(numbers, range)
    if log and not (whole and abs(step) == 1):
        raise ConfigError(
            "a range with the tag log must be of whole numbers with step 1; or use interval(a,b)."
        )
    return Numbers(
        low=float(ends[0]), high=float(ends[1]), whole=whole, log=log, step=float(abs(step))
    )


def _interval(value: hydra_types.IntervalSweep, key: str) -> Numbers:
    low, high = value.start, value.end
    assert low is not None
    assert high is not None
    kind = _number_type(key)
    if kind is None:
        raise ConfigError("an interval is for numbers; give the values, separated by commas.")
    if low > high:
        raise ConfigError("the first number of an interval must not be above the second.")
    if kind is int and not (float(low).is_integer() and float(high).is_integer()):
        raise ConfigError("the key takes whole numbers; the ends of the interval must be whole.")
    return Numbers(
        low=float(low), high=float(high), whole=kind is int or isinstance(low, int),
        log=_is_log(value, low),
    )  # fmt: skip


def _is_log(value: hydra_types.Sweep, low: float) -> bool:
    if not value.tags <= {"log"}:
        raise ConfigError(f"the only tag is log, got {', '.join(sorted(value.tags))}.")
    if value.tags and low <= 0:
        raise ConfigError("with the tag log all numbers must be above 0.")
    return bool(value.tags)


def _number_type(key: str) -> type | None:
    """int, float, or None for a key that takes no numbers (a config group, say)."""
    try:
        return Schema(RunConfig).number_type(key)
    except ConfigError:
        return None
