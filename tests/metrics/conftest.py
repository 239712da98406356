"""Small transcripts, written as what happens at which frame."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import pytest

from proassist_lit.types import (
    FrameOutput,
    Reference,
    StepState,
    Transcript,
    apply_updates,
    parse_updates,
)

MakeTranscript = Callable[..., Transcript]


@pytest.fixture
def make_transcript() -> MakeTranscript:
    def make(
        num_frames: int,
        gens: Mapping[int, str] | None = None,
        refs: Mapping[int, str] | None = None,
        *,
        updates: Mapping[int, str] | None = None,
        ref_updates: Mapping[int, str] | None = None,
        keywords: Mapping[int, tuple[str, ...]] | None = None,
        kinds: Mapping[int, tuple[str, ...]] | None = None,
        unsupervised: Collection[int] = (),
        num_steps: int = 0,
        fps: float = 2.0,
        dataset: str = "toy",
        stream_id: str = "stream",
    ) -> Transcript:
        """Probabilities are 0.9 where the assistant acts and 0.1 where it does not."""
        gens, refs, keywords = gens or {}, refs or {}, keywords or {}
        updates, ref_updates = updates or {}, ref_updates or {}
        state: dict[str, StepState] = {f"S{i + 1}": StepState.NOT_STARTED for i in range(num_steps)}
        ref_state = dict(state)
        outputs, references = [], []
        for i in range(num_frames):
            mine, _ = parse_updates(updates.get(i, ""))
            theirs, _ = parse_updates(ref_updates.get(i, ""))
            state, num_invalid = apply_updates(state, mine)
            ref_state, _ = apply_updates(ref_state, theirs)
            outputs.append(
                FrameOutput(
                    frame_idx=100 + i,
                    time_s=(100 + i) / fps,
                    speak_prob=0.9 if i in gens else 0.1,
                    dst_prob=(0.9 if i in updates else 0.1) if num_steps else None,
                    speak=i in gens,
                    dst=i in updates,
                    text=gens.get(i, ""),
                    updates=mine,
                    dst_invalid=num_invalid,
                    state=state,
                )
            )
            references.append(
                Reference(
                    text=refs.get(i, ""),
                    updates=theirs,
                    state=ref_state,
                    keywords=keywords.get(i, ()),
                    kinds=(kinds or {}).get(i, ()),
                    speak_label=int(i in refs),
                    dst_label=int(i in ref_updates) if num_steps else None,
                    supervised=i not in unsupervised,
                )
            )
        return Transcript(
            stream_id=stream_id,
            dataset=dataset,
            fps=fps,
            steps=tuple((f"S{i + 1}", f"step {i + 1}") for i in range(num_steps)),
            frames=tuple(outputs),
            references=tuple(references),
        )

    return make
