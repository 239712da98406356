"""Utterances are matched by our rules, and with compat=proassist by those of the reference."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from proassist_lit.config import Compat, RunConfig
from proassist_lit.evaluation.config import EvaluationConfig, Matching
from proassist_lit.evaluation.result import EvaluationResult
from proassist_lit.evaluation.streamer import Streamer
from proassist_lit.metrics.matching import UtteranceMatch
from proassist_lit.model.config import ModelConfig
from proassist_lit.report import from_evaluation
from proassist_lit.report.from_evaluation import gather_dashboard, gather_glance
from proassist_lit.report.from_run import stream_view
from proassist_lit.streaming.config import Strategy, StreamConfig
from proassist_lit.types import FrameOutput, Reference, Transcript
from tests.evaluation.fakes import CONFIG, make_evaluator
from tests.fakes import tiny_model

SAID = {10: "turn it on", 30: "well done", 50: "close it"}
MEANT = {11: "turn it off", 30: "well done", 51: "open it"}


VECTORS = {"turn it on": (1, 0, 0), "turn it off": (-1, 0, 0), "well done": (0, 1, 0),
           "close it": (0, 0, 1), "open it": (0, 0, -1)}  # fmt: skip


class Opposites:
    """Knows words and their opposites."""

    name = "opposites"

    def __call__(self, texts: Sequence[str]) -> Tensor:
        vectors = [VECTORS.get(text, (0, 0, 0)) for text in texts]
        return torch.tensor(vectors, dtype=torch.float32)


def stream() -> Transcript:
    """Says the opposite twice, half a second early, and once the same at the very frame."""
    return Transcript(
        stream_id="a",
        dataset="toy",
        fps=2.0,
        steps=(),
        frames=tuple(
            FrameOutput(
                frame_idx=i, time_s=i / 2, speak_prob=0.9 if i in SAID else 0.1, dst_prob=0.1,
                speak=i in SAID, dst=False, text=SAID.get(i, ""),
            )
            for i in range(60)
        ),
        references=tuple(
            Reference(text=MEANT.get(i, ""), speak_label=int(i in MEANT)) for i in range(60)
        ),
    )  # fmt: skip


def run(compat: Compat, chat: str = "compact", matching: Matching = Matching.AUTO) -> RunConfig:
    return RunConfig(
        compat=compat,
        evaluation=EvaluationConfig(similarity="words", matching=matching),
        model=ModelConfig(chat=chat),
        stream=StreamConfig(strategy=Strategy.DROP_MIDDLE),
    )


@pytest.mark.parametrize(
    ("config", "paired"),
    [
        (run(Compat.NONE), [30]),
        (run(Compat.NONE, "dst_ext"), [30]),
        (run(Compat.PROASSIST), [10, 50]),
        (run(Compat.PROASSIST, "dst_ext"), [10, 50]),
        (run(Compat.PROASSIST, matching=Matching.OURS), [30]),
        (run(Compat.NONE, matching=Matching.REFERENCE), [10, 50]),
    ],
)
def test_compat_matches_as_the_reference_does(
    config: RunConfig, paired: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Streamer, "answer", lambda *_, **__: [[stream()]])
    drawn: list[UtteranceMatch] = []

    def timeline(_: Transcript, match: UtteranceMatch, **__: float) -> bytes:
        drawn.append(match)
        return b""

    monkeypatch.setattr(from_evaluation, "draw_timeline", timeline)
    matcher = config.matcher(Opposites())
    evaluator = make_evaluator(matcher=matcher)

    metrics = evaluator.quick(tiny_model(), 1).metrics
    result = EvaluationResult(config=CONFIG, metrics={}, transcripts={"val": [stream()]})
    board = gather_dashboard(result, matcher)
    gather_glance(result, matcher)
    view = stream_view("val", None, stream(), None, result, matcher)

    assert metrics["val_stream/utterance_num_matched"] == len(paired)
    assert metrics["val_stream/utterance_num_redundant"] == 3 - len(paired)
    outcomes = [row[4] for row in board.tables["utterances"].rows]
    assert outcomes.count("matched") == len(paired)
    assert [[pair.gen_frame for pair in match.pairs] for match in drawn] == [paired, paired]
    assert [gen_frame for gen_frame, _, _ in view.matched] == paired
    assert sorted(view.redundant) == sorted(set(SAID) - set(paired))
