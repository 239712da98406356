"""Two runs compared on the same streams: which dialogue does a judge find better?"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from scipy.stats import binomtest

from proassist_lit.data.seeding import stable_seed
from proassist_lit.judge.answer_file import AnswerFile
from proassist_lit.judge.dialogue import reference_lines
from proassist_lit.judge.prompt import ASPECTS, compare_prompt
from proassist_lit.judge.request import JudgeSettings, Request, repeated
from proassist_lit.judge.usage import Usage
from proassist_lit.judge.verdict import Choice, Choices, read_all, read_choices
from proassist_lit.types import Transcript


@dataclass(frozen=True, kw_only=True)
class CommonStreams:
    """The streams on which two runs can be compared.

    Attributes:
        pairs: transcripts of this run and of the other one, of the same stream.
        only_here: streams that the other run has not.
        only_there: streams that this run has not.
        differing: streams of one name whose references or users differ: not the same streams.
    """

    pairs: tuple[tuple[Transcript, Transcript], ...]
    only_here: tuple[str, ...]
    only_there: tuple[str, ...]
    differing: tuple[str, ...]


def common_streams(here: Sequence[Transcript], there: Sequence[Transcript]) -> CommonStreams:
    """Pair the streams of two runs by name, in the order of the first."""
    mine, others = ({t.stream_id: t for t in run} for run in (here, there))
    both = [name for name in mine if name in others]
    same = [n for n in both if reference_lines(mine[n]) == reference_lines(others[n])]
    return CommonStreams(
        pairs=tuple((mine[name], others[name]) for name in same),
        only_here=tuple(name for name in mine if name not in others),
        only_there=tuple(name for name in others if name not in mine),
        differing=tuple(name for name in both if name not in same),
    )


@dataclass(frozen=True, kw_only=True)
class PairRequests:
    """What is asked about a pair: each question both ways.

    Attributes:
        stream_id: the stream.
        here_first: this run is shown as A, the other as B.
        there_first: the other way round.
    """

    stream_id: str
    here_first: tuple[Request, ...]
    there_first: tuple[Request, ...]

    def in_order(self) -> tuple[Request, ...]:
        """One way, then the other, for every repeat; which way is first hangs on the name."""
        ways = (self.here_first, self.there_first)
        if stable_seed("judge", self.stream_id) % 2:
            ways = (self.there_first, self.here_first)
        return tuple(itertools.chain.from_iterable(zip(*ways, strict=True)))


def pair_requests(here: Transcript, there: Transcript, settings: JudgeSettings) -> PairRequests:
    """What to ask a judge about two transcripts of a stream."""
    name = here.stream_id
    return PairRequests(
        stream_id=name,
        here_first=repeated(name, compare_prompt(here, there), settings),
        there_first=repeated(name, compare_prompt(there, here), settings),
    )


@dataclass(frozen=True, kw_only=True)
class PairChoices:
    """What a judge says of a pair.

    Attributes:
        stream_id: the stream.
        here_first: of every readable answer in which this run was A.
        there_first: of every readable answer in which it was B.
        unreadable: why the others could not be read.
        num_missing: requests without an answer.
    """

    stream_id: str
    here_first: tuple[Choices, ...]
    there_first: tuple[Choices, ...]
    unreadable: tuple[str, ...] = ()
    num_missing: int = 0

    @property
    def is_complete(self) -> bool:
        """Both ways have a readable answer; one way alone would count the position in."""
        return bool(self.here_first and self.there_first)

    def preferences(self, aspect: str) -> tuple[float, float]:
        """How much this run is preferred, in [-1, 1]: when shown first, and when shown second."""
        return (
            fmean(_PREFERS_FIRST[choices[aspect]] for choices in self.here_first),
            fmean(-_PREFERS_FIRST[choices[aspect]] for choices in self.there_first),
        )


_PREFERS_FIRST: dict[Choice, int] = {"A": 1, "B": -1, "tie": 0}


@dataclass(frozen=True, kw_only=True)
class AspectComparison:
    """Two runs in one aspect, over all pairs judged both ways.

    Attributes:
        wins: streams on which this run is preferred, both ways added up.
        ties: streams on which neither is.
        losses: streams on which the other run is.
        p_value: probability of a split of wins and losses at least as uneven, were both runs as
            good (two-sided sign test; ties are left out). 1 without a win or loss.
        num_first: answers that prefer the dialogue shown first.
        num_decided: answers that prefer either. Half of them first means no bias of position.
        num_agreeing: streams on which both ways gave the same.
    """

    wins: int
    ties: int
    losses: int
    p_value: float
    num_first: int
    num_decided: int
    num_agreeing: int


@dataclass(frozen=True, kw_only=True)
class RunComparison:
    """Two runs compared by a judge.

    Attributes:
        settings: how it was asked.
        pairs: one entry a stream.
        usage: what all its answers took, whenever they were asked.
        left_out: streams that could not be paired, by the reason.
    """

    settings: JudgeSettings
    pairs: tuple[PairChoices, ...]
    usage: Usage
    left_out: dict[str, tuple[str, ...]]

    @property
    def num_judged(self) -> int:
        """Streams that were judged both ways."""
        return sum(pair.is_complete for pair in self.pairs)

    @property
    def num_missing(self) -> int:
        """Requests without an answer."""
        return sum(pair.num_missing for pair in self.pairs)

    @property
    def unreadable(self) -> Counter[str]:
        """How many answers could not be read, by the reason."""
        return Counter(reason for pair in self.pairs for reason in pair.unreadable)

    def aspect(self, aspect: str) -> AspectComparison:
        """Wins, losses and the bias of position in ``aspect``."""
        judged = [pair for pair in self.pairs if pair.is_complete]
        ways = [pair.preferences(aspect) for pair in judged]
        wins = sum(first + second > 0 for first, second in ways)
        losses = sum(first + second < 0 for first, second in ways)
        chosen = Counter(
            choices[aspect] for pair in judged for choices in (*pair.here_first, *pair.there_first)
        )
        decided = wins + losses
        return AspectComparison(
            wins=wins,
            ties=len(ways) - decided,
            losses=losses,
            p_value=float(binomtest(wins, decided).pvalue) if decided else 1.0,
            num_first=chosen["A"],
            num_decided=chosen["A"] + chosen["B"],
            num_agreeing=sum(_sign(first) == _sign(second) for first, second in ways),
        )

    def to_json(self) -> dict[str, Any]:
        """Everything, for ``judge.json``."""
        return {
            **vars(self.settings),
            **{aspect: vars(self.aspect(aspect)) for aspect in ASPECTS},
            "num_streams": self.num_judged,
            "num_unreadable": self.unreadable.total(),
            "num_missing": self.num_missing,
            "unreadable": dict(self.unreadable),
            "left_out": {reason: list(names) for reason, names in self.left_out.items()},
            "usage": vars(self.usage),
            "streams": {
                pair.stream_id: {
                    "here_first": [dict(choices) for choices in pair.here_first],
                    "there_first": [dict(choices) for choices in pair.there_first],
                    "unreadable": list(pair.unreadable),
                    "num_missing": pair.num_missing,
                }
                for pair in self.pairs
            },
        }


def compare_runs(
    requests: Sequence[PairRequests],
    answers: AnswerFile,
    settings: JudgeSettings,
    left_out: dict[str, tuple[str, ...]],
) -> RunComparison:
    """Read the answers that there are."""
    pairs = []
    for pair in requests:
        found = [answers.find(way) for way in (pair.here_first, pair.there_first)]
        (here_first, not_here), (there_first, not_there) = (
            read_all(way, read_choices) for way in found
        )
        pairs.append(
            PairChoices(
                stream_id=pair.stream_id,
                here_first=here_first,
                there_first=there_first,
                unreadable=not_here + not_there,
                num_missing=len(pair.in_order()) - sum(map(len, found)),
            )
        )
    usage = answers.usage(request for pair in requests for request in pair.in_order())
    return RunComparison(settings=settings, pairs=tuple(pairs), usage=usage, left_out=left_out)


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)
