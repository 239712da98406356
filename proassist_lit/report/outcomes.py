"""What became of every utterance and every state update of a stream, as rows in order of time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from proassist_lit.metrics.dst import match_updates
from proassist_lit.metrics.matching import UtteranceMatch
from proassist_lit.types import Transcript, Transition


class Outcome(StrEnum):
    """What became of an utterance, or of a state update (which is never mismatched)."""

    MATCHED = "matched"
    MISMATCHED = "mismatched"
    """In time, but of other words."""
    MISSED = "missed"
    REDUNDANT = "redundant"


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """A reference utterance, a generated one, or both of a pair.

    Attributes:
        outcome: what became of it.
        frame_idx: of the reference where there is one, else of what was said; in the video.
        ref_time_s: None for what is redundant.
        gen_time_s: None for what was missed.
        reference: words of the reference, empty without one.
        generated: words of the assistant, empty without any.
        score: semantic similarity of a pair, in [-1, 1]; else None.
    """

    outcome: Outcome
    frame_idx: int
    ref_time_s: float | None = None
    gen_time_s: float | None = None
    reference: str = ""
    generated: str = ""
    score: float | None = None

    @property
    def late_s(self) -> float | None:
        """Seconds that the assistant spoke after the reference; None without a pair."""
        if self.ref_time_s is None or self.gen_time_s is None:
            return None
        return self.gen_time_s - self.ref_time_s


@dataclass(frozen=True, kw_only=True)
class StateChange:
    """A state update of the reference, of the assistant, or both of a pair.

    Attributes:
        outcome: what became of it.
        frame_idx: of the reference where there is one, else of the assistant's; in the video.
        step: identifier of the step.
        transition: what happened to it.
        ref_time_s: None for what is redundant.
        gen_time_s: None for what was missed.
    """

    outcome: Outcome
    frame_idx: int
    step: str
    transition: Transition
    ref_time_s: float | None = None
    gen_time_s: float | None = None


def utterances(transcript: Transcript, match: UtteranceMatch) -> list[Utterance]:
    """Every utterance of a stream, pairs once; in order of time."""
    frames, references = transcript.frames, transcript.references
    found = [
        Utterance(
            outcome=Outcome.MATCHED
            if pair.score >= match.semantic_threshold
            else Outcome.MISMATCHED,
            frame_idx=frames[pair.ref_frame].frame_idx,
            ref_time_s=frames[pair.ref_frame].time_s,
            gen_time_s=frames[pair.gen_frame].time_s,
            reference=references[pair.ref_frame].text.strip(),
            generated=frames[pair.gen_frame].text.strip(),
            score=pair.score,
        )
        for pair in match.pairs
    ]
    found += [
        Utterance(
            outcome=Outcome.MISSED,
            frame_idx=frames[i].frame_idx,
            ref_time_s=frames[i].time_s,
            reference=references[i].text.strip(),
        )
        for i in match.missed
    ]
    found += [
        Utterance(
            outcome=Outcome.REDUNDANT,
            frame_idx=frames[i].frame_idx,
            gen_time_s=frames[i].time_s,
            generated=frames[i].text.strip(),
        )
        for i in match.redundant
    ]
    return sorted(found, key=lambda utterance: utterance.frame_idx)


def state_changes(transcript: Transcript) -> list[StateChange]:
    """Every state update of a stream, pairs once; in order of time."""
    frames = transcript.frames
    found = []
    for update, gen_frame, ref_frame in match_updates(transcript):
        both = gen_frame is not None and ref_frame is not None
        missed = Outcome.MISSED if gen_frame is None else Outcome.REDUNDANT
        first = gen_frame if ref_frame is None else ref_frame
        assert first is not None
        found.append(
            StateChange(
                outcome=Outcome.MATCHED if both else missed,
                frame_idx=frames[first].frame_idx,
                step=update.id,
                transition=update.transition,
                ref_time_s=None if ref_frame is None else frames[ref_frame].time_s,
                gen_time_s=None if gen_frame is None else frames[gen_frame].time_s,
            )
        )
    return sorted(found, key=lambda change: change.frame_idx)
