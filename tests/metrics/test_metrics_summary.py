from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from proassist_lit.metrics.dst import DstMetrics
from proassist_lit.metrics.kinds import UtteranceKindMetrics
from proassist_lit.metrics.match_windows import MatchWindow
from proassist_lit.metrics.matcher import Matcher
from proassist_lit.metrics.matching import MatchConfig
from proassist_lit.metrics.similarity import HashedWordSimilarity
from proassist_lit.metrics.speaking import FrameDecisionMetrics
from proassist_lit.metrics.summary import evaluate_transcripts
from proassist_lit.metrics.text import TextPairMetrics, matched_texts
from proassist_lit.metrics.utterances import UtteranceMetrics
from proassist_lit.types import Transcript

MATCHER = Matcher(HashedWordSimilarity())
REFS = {3: "slice the carrot", 9: "boil the water", 15: "serve warm soup"}
UPDATES = {3: "S1->start", 9: "S1->complete;S2->start", 15: "S2->complete"}
KEYWORDS = {3: ("slice", "carrot"), 9: ("boil", "water"), 15: ("serve",)}
KINDS = {3: ("instruction",), 9: ("correction",), 15: ("feedback", "instruction")}
WHOLE = {"updates": UPDATES, "ref_updates": UPDATES, "num_steps": 2, "keywords": KEYWORDS,
         "kinds": KINDS}  # fmt: skip


def test_perfect_streams_score_one_in_every_share(make_transcript) -> None:
    scores = evaluate_transcripts([make_transcript(20, REFS, REFS, **WHOLE)], MATCHER)
    ones = [
        *(
            f"{head}_{name}"
            for head in ("speak", "dst")
            for name in ("precision", "recall", "f1", "balanced_accuracy", "ap", "auroc")
        ),
        *(
            f"utterance_{name}"
            for name in ("precision", "recall", "f1", "jaccard", "semantic_score")
        ),
        "content_accuracy",
        *(f"dst_update_{name}" for name in ("precision", "recall", "f1")),
        *(f"dst_{name}_accuracy" for name in ("step", "transition", "joint_goal")),
    ]
    assert {key: scores[key] for key in ones} == dict.fromkeys(ones, 1.0)
    assert scores["speak_ece"] == pytest.approx(0.1)  # silent at 0.1, spoken at 0.9
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    assert all(isinstance(value, float) and math.isfinite(value) for value in scores.values())


def test_one_frame_late_keeps_utterances_and_updates(make_transcript) -> None:
    gens = {i + 1: text for i, text in REFS.items()}
    updates = {i + 1: text for i, text in UPDATES.items()}
    late = make_transcript(20, gens, REFS, **(WHOLE | {"updates": updates}))
    scores = evaluate_transcripts([late], MATCHER)
    assert scores["utterance_f1"] == scores["dst_update_f1"] == scores["content_accuracy"] == 1.0
    assert scores["utterance_time_difference_s"] == 0.5
    assert scores["speak_f1"] == 0.0  # the frame decisions are of the exact frame


def test_keys_without_meaning_are_left_out(make_transcript) -> None:
    scores = evaluate_transcripts([make_transcript(20, {}, REFS)], MATCHER)
    assert {"speak_f1", "utterance_f1"} <= set(scores)
    assert not [key for key in scores if key.startswith("dst_")]
    for key in ("content_accuracy", "utterance_bleu_1", "utterance_semantic_score"):
        assert key not in scores


def test_windows_and_config_reach_the_matching(make_transcript) -> None:
    stream = make_transcript(20, {6: "slice the onion"}, {3: "slice the carrot"})
    words = HashedWordSimilarity()
    assert evaluate_transcripts([stream], MATCHER)["utterance_f1"] == 0.0
    windows = {"toy": MatchWindow(-2.0, 2.0)}
    assert evaluate_transcripts([stream], Matcher(words, windows))["utterance_f1"] == 1.0
    strict = MatchConfig(semantic_threshold=0.9)
    scores = evaluate_transcripts([stream], Matcher(words, windows, strict))
    assert scores["utterance_num_mismatched"] == 1
    assert Matcher(words, windows).match(stream).pairs[0].ref_frame == 3


def test_all_texts_are_embedded_in_one_call_first(make_transcript) -> None:
    calls: list[set[str]] = []

    class Recorder(HashedWordSimilarity):
        def __call__(self, texts: Sequence[str]) -> Tensor:
            calls.append(set(texts))
            return super().__call__(texts)

    streams = [make_transcript(20, REFS, {}), make_transcript(20, {}, {2: "stop"})]
    evaluate_transcripts(streams, Matcher(Recorder()))
    assert calls[0] == {*REFS.values(), "stop"}
    assert "" not in calls[0]


def mixed_streams(make_transcript) -> list[Transcript]:
    late = {i + 1: text for i, text in REFS.items()}
    return [
        make_transcript(20, late, REFS, **WHOLE),
        make_transcript(25, {2: "slice the onion", 12: "hm"}, REFS, fps=3.0),
        make_transcript(20, {}, REFS, **(WHOLE | {"updates": {5: "S1->complete"}})),
    ]


def test_order_of_streams_changes_nothing(make_transcript) -> None:
    streams = mixed_streams(make_transcript)
    forwards = evaluate_transcripts(streams, MATCHER)
    assert evaluate_transcripts(streams[::-1], MATCHER) == pytest.approx(forwards, abs=1e-9)


def test_ten_thousand_frames_are_scored_within_two_seconds(make_transcript) -> None:
    num_frames = 10_000
    gens = {i: f"do step {i % 40}" for i in range(0, num_frames, 16)}
    refs = {i + i % 3: text for i, text in gens.items()}
    stream = replace(make_transcript(num_frames, gens, refs, num_steps=2), stream_id="long")
    evaluate_transcripts([make_transcript(3)], MATCHER)  # first-use costs aside
    start = time.process_time()
    scores = evaluate_transcripts([stream], MATCHER)
    assert time.process_time() - start < 2.0
    assert scores["utterance_recall"] > 0.9


def rank_main(rank: int, store: str, out: str, streams: list[Transcript]) -> None:
    """One of three ranks; the last has no stream at all."""
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=3)
    mine = [streams[:2], streams[2:], []][rank]
    metrics = [FrameDecisionMetrics("speak"), FrameDecisionMetrics("dst"), DstMetrics()]
    metrics += [UtteranceMetrics(MATCHER)]
    values: dict[str, float] = {}
    for metric in metrics:
        metric.update(mine)
        values |= {key: float(value) for key, value in metric.compute().items()}
    kinds = UtteranceKindMetrics(HashedWordSimilarity())
    kinds.update(mine, MATCHER.match_all(mine))
    values |= {key: float(value) for key, value in kinds.compute().items()}
    texts = TextPairMetrics("utterance")
    texts.update(matched_texts(mine, MATCHER.match_all(mine)))
    values |= {key: float(value) for key, value in texts.compute().items()}
    Path(f"{out}.{rank}").write_text(json.dumps(values))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_three_ranks_compute_what_one_does(make_transcript, tmp_path: Path) -> None:
    streams = mixed_streams(make_transcript)
    out = str(tmp_path / "values")
    arguments = (str(tmp_path / "store"), out, streams)
    torch.multiprocessing.spawn(rank_main, arguments, nprocs=3)
    whole = evaluate_transcripts(streams, MATCHER)
    for rank in range(3):
        found = json.loads(Path(f"{out}.{rank}").read_text())
        assert found == pytest.approx(whole, abs=1e-9)
