"""What a report is made of: one run's numbers, curves and streams, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from proassist_lit.errors import StreamError
from proassist_lit.evaluation.result import SweepPoint
from proassist_lit.metrics.decision_curves import DecisionCurves
from proassist_lit.types import Transcript


@dataclass(frozen=True, kw_only=True)
class StreamView:
    """One stream as the report shows it: its transcript, its pictures, its matches.

    Frames are named by ``FrameOutput.frame_idx`` everywhere, i.e. absolute in the video.

    Attributes:
        split: ``val`` or ``test``.
        transcript: what the assistant did beside the reference.
        theta_speak: threshold of P(speak) that the stream was run with, in [0, 1]; None where
            another number was compared (``stream.rule``).
        theta_dst: threshold of P(update), in [0, 1].
        semantic_threshold: score from which on (>=) a pair says the right thing, as the matching
            decides it, in [-1, 1].
        filmstrip: (frame_idx, PNG or JPEG bytes) of a few small pictures, e.g. 64x64.
        rendered: the pictures are stand-ins drawn from annotations, not the video.
        matched: (generated frame_idx, reference frame_idx, semantic score) of every pair that
            the matching made, mismatched ones (of a lower score) included.
        missed: frame_idx of reference utterances without a partner.
        redundant: frame_idx of generated utterances without a partner.

    Raises:
        StreamError: a frame that the transcript does not hold, or a picture of another format.
    """

    split: str
    transcript: Transcript
    theta_speak: float | None
    theta_dst: float
    semantic_threshold: float
    filmstrip: Sequence[tuple[int, bytes]] = ()
    rendered: bool = False
    matched: Sequence[tuple[int, int, float]] = ()
    missed: Sequence[int] = ()
    redundant: Sequence[int] = ()

    def __post_init__(self) -> None:
        where = f"StreamView of stream {self.transcript.stream_id!r}"
        known = {frame.frame_idx for frame in self.transcript.frames}
        named = {
            "matched": [i for gen, ref, _ in self.matched for i in (gen, ref)],
            "missed": self.missed,
            "redundant": self.redundant,
        }
        for name, frames in named.items():
            unknown = sorted({i for i in frames if i not in known})
            if unknown:
                raise StreamError(
                    f"{where}: {name} names frames {unknown[:5]}, which the transcript of "
                    f"{len(known)} frames does not hold; give FrameOutput.frame_idx, not a "
                    "position in the list."
                )
        for frame_idx, picture in self.filmstrip:
            if picture_type(picture) is None:
                raise StreamError(
                    f"{where}: the picture of frame {frame_idx} begins with {picture[:4]!r}, which "
                    "is neither PNG nor JPEG; encode it as one of the two."
                )


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """Everything ``report.html`` shows of one run.

    Attributes:
        title: name of the run.
        config_yaml: the resolved configuration, as written to ``config.yaml``.
        metrics: flat, keys as in ``metrics.json``: ``test/utterance_f1``,
            ``baseline/blind/test/utterance_f1``, ``test/theta_speak``.
        curves: (step, value) by name: ``train/loss``, ``val/loss``, ``train/lr``.
        streams: the streams to look into.
        notes: how it was made (``run_notes``), and what came of it.
        decisions: curves of each head over all streams of a split, by split and head (``speak``,
            ``dst``); heads without labels are left out.
        sweep: the pairs of thresholds that were tried, by split, in any order.
        compares_probs: whether its thresholds to speak are thresholds of P(speak); otherwise
            another number was compared (``stream.rule``), and P(speak) is shown without one.
        has_words: whether anything was written; if not (``stream.words=false``), no errors are
            listed: all that was to be tracked would be missed.
        earlier: flat metrics of another run to compare with, None for none.
        earlier_name: its name.
    """

    title: str
    config_yaml: str
    metrics: Mapping[str, float | str]
    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    streams: Sequence[StreamView] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    decisions: Mapping[str, Mapping[str, DecisionCurves]] = field(default_factory=dict)
    sweep: Mapping[str, Sequence[SweepPoint]] = field(default_factory=dict)
    compares_probs: bool = True
    has_words: bool = True
    earlier: Mapping[str, float | str] | None = None
    earlier_name: str = ""


def picture_type(picture: bytes) -> str | None:
    """Media type of encoded picture bytes; None if neither PNG nor JPEG."""
    if picture.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if picture.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    return None
