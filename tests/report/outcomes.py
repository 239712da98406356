"""A stream with one utterance and one update of every outcome."""

from __future__ import annotations

from proassist_lit.metrics.matcher import Matcher
from proassist_lit.metrics.similarity import HashedWordSimilarity
from proassist_lit.types import FrameOutput, Reference, Transcript, Transition, Update

MATCHER = Matcher(HashedWordSimilarity())
REF = {2: "wash the pan", 8: "peel it", 14: "well done"}
SAID = {3: "wash the pan", 8: "cut carrots now", 18: "hello"}
START, COMPLETE = Transition.START, Transition.COMPLETE
REF_UPDATES = {2: Update("S1", START), 10: Update("S1", COMPLETE)}
UPDATES = {3: Update("S1", START), 17: Update("S2", START)}


def stream(name: str = "a", *, first_frame: int = 100, text: str = "") -> Transcript:
    """Ten seconds at 2 fps; one utterance and one update of every outcome."""
    said = {**SAID, 18: text or SAID[18]}
    return Transcript(
        stream_id=name,
        dataset="toy",
        fps=2.0,
        steps=(("S1", "wash"), ("S2", "peel")),
        frames=tuple(
            FrameOutput(
                frame_idx=first_frame + i,
                time_s=(first_frame + i) / 2,
                speak_prob=0.9 if i in said else 0.1,
                dst_prob=0.8 if i in UPDATES else 0.2,
                speak=i in said,
                dst=i in UPDATES,
                text=said.get(i, ""),
                updates=(UPDATES[i],) if i in UPDATES else (),
                context_len=10 * i,
            )
            for i in range(20)
        ),
        references=tuple(
            Reference(
                text=REF.get(i, ""),
                updates=(REF_UPDATES[i],) if i in REF_UPDATES else (),
                speak_label=int(i in REF),
                dst_label=int(i in REF_UPDATES),
            )
            for i in range(20)
        ),
    )
