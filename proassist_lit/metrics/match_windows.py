"""How far from a reference utterance a generated one may lie to answer it, by data set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from proassist_lit.data.record_checks import nearest
from proassist_lit.errors import ConfigError


@dataclass(frozen=True)
class MatchWindow:
    """When a reference utterance may be to answer for a generated one.

    Attributes:
        start_s: earliest reference time minus generated time, seconds; negative: the assistant
            may be that much late.
        end_s: latest reference time minus generated time, seconds; positive: the assistant may
            be that much early.
    """

    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        if not -math.inf < self.start_s <= self.end_s < math.inf:
            raise ConfigError(
                "match window: both must be finite, and start_s must not be after end_s, got "
                f"{self.start_s} s and {self.end_s} s; -1 and 2 let a reference lie 1 s before to "
                "2 s after the generated utterance, a large number of seconds sets no limit."
            )

    def frames(self, fps: float) -> tuple[int, int]:
        """(l, r) in frames; a generation at frame i may answer the references i + l .. i + r."""
        return _whole_frames(self.start_s * fps), _whole_frames(self.end_s * fps)


def _whole_frames(frames: float) -> int:
    """Cut towards zero, after a hair more: 4.1 s at 30 fps stay 123 frames after rounding."""
    return int(math.copysign(abs(frames) + 1e-6, frames))


MATCH_WINDOWS: Mapping[str, MatchWindow] = {
    "toy": MatchWindow(-1.0, 2.0),
    "captaincook4d": MatchWindow(-2.0, 4.0),
    "ego4d": MatchWindow(-4.0, 8.5),
    "epickitchens": MatchWindow(-1.5, 3.0),
    "holoassist": MatchWindow(-1.5, 2.5),
    "egoexolearn": MatchWindow(-2.0, 3.5),
    "assembly101": MatchWindow(-2.0, 4.0),
    "wtag": MatchWindow(-3.0, 6.0),
}
"""Window of each data set: about a quarter before and half after the mean talking interval."""

DEFAULT_WINDOW = MatchWindow(-2.5, 2.5)
"""Window of narrations, and of data sets that have no entry."""


def match_window(dataset: str, windows: Mapping[str, MatchWindow] | None = None) -> MatchWindow:
    """Return the match window of a data set.

    Args:
        dataset: name of the data set, with or without the prepared file's name behind a slash
            (``ego4d/dialog_val_L0_I5``). Narrations have their own window in every data set.
        windows: entries that go before those of ``MATCH_WINDOWS``, by the whole name or by the
            part before the slash.
    """
    base, _, subset = dataset.partition("/")
    for name in (dataset, base):
        if windows and name in windows:
            return windows[name]
    if subset.startswith("narration"):
        return DEFAULT_WINDOW
    return MATCH_WINDOWS.get(base, DEFAULT_WINDOW)


def check_windows(windows: Iterable[str], datasets: Iterable[str]) -> None:
    """Refuse windows of data sets that are not there: the default would be taken unsaid.

    Windows of data sets that have a built-in one may stand in settings that several runs share.

    Args:
        windows: names that windows were given for (``evaluation.windows``).
        datasets: names of the data sets, with or without the part behind the slash.

    Raises:
        ConfigError: naming the nearest data set that is there.
    """
    known = {name for dataset in datasets for name in (dataset, dataset.partition("/")[0])}
    if wrong := [name for name in windows if name not in known | MATCH_WINDOWS.keys()]:
        raise ConfigError(
            "\n".join(
                f"evaluation.windows: there is no data set {name!r} in the data; the nearest is "
                f"{nearest(name, known)!r}."
                for name in wrong
            )
        )
