"""Matching of utterances against numbers made by the reference's own code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from proassist_lit.metrics.match_windows import match_window
from proassist_lit.metrics.matcher import Matcher
from proassist_lit.metrics.matching import (
    MatchConfig,
    UtteranceMatch,
    candidate_edges,
    match_utterances,
)
from proassist_lit.metrics.text import TextPairMetrics, matched_texts
from proassist_lit.metrics.utterances import UtteranceMetrics
from proassist_lit.types import FrameOutput, Reference, Transcript
from tests.parity.numbers import PARITY, needs

pytestmark = needs("matching.json", "known_reference_bugs.json")


class StoredVectors:
    """The sentence embeddings that the reference was given."""

    name = "stored"

    def __init__(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        self._row = {text: i for i, text in enumerate(texts)}
        self._vectors = torch.from_numpy(vectors)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        return self._vectors[[self._row[text] for text in texts]]


@pytest.fixture(scope="module")
def numbers() -> dict[str, Any]:
    return json.loads((PARITY / "matching.json").read_text())


@pytest.fixture(scope="module")
def bugs() -> list[dict[str, Any]]:
    path = PARITY / "known_reference_bugs.json"
    sections = json.loads(path.read_text())["matching"]
    return [case for section in sections.values() for case in section]


@pytest.fixture(scope="module")
def vectors(numbers: dict[str, Any]) -> StoredVectors:
    file, _, key = numbers["vectors_file"].partition(":")
    with np.load(PARITY / file) as stored:
        return StoredVectors(numbers["texts"], stored[key])


def dense(stream: dict[str, Any], key: str) -> list[str]:
    return [stream[key].get(str(i), "") for i in range(stream["num_frames"])]


def config_of(stream: dict[str, Any], **extra: bool) -> MatchConfig:
    return MatchConfig(
        distance_factor=stream["dist_func_factor"],
        distance_power=stream["dist_func_power"],
        compat_abs_cosine=True,
        **extra,
    )


def match_of(
    stream: dict[str, Any], vectors: StoredVectors, **extra: bool
) -> tuple[UtteranceMatch, dict[str, Any]]:
    match = match_utterances(
        dense(stream, "gens"),
        dense(stream, "refs"),
        window_frames=tuple(stream["match_window_frames"]),
        similarity=vectors if stream["use_sts"] else None,
        config=config_of(stream, **extra),
    )
    return match, {
        "matched": [[pair.gen_frame, pair.ref_frame] for pair in match.pairs],
        "missed": list(match.missed),
        "redundant": list(match.redundant),
    }


def discrete(expected: dict[str, Any]) -> dict[str, Any]:
    return {key: expected[key] for key in ("matched", "missed", "redundant")}


def test_matching_equals_the_reference_where_it_is_exact(
    numbers: dict[str, Any], vectors: StoredVectors
) -> None:
    streams = numbers["streams"] + numbers["edge_streams"]
    assert streams
    for stream in streams:
        match, found = match_of(stream, vectors)
        assert found == discrete(stream["expected"]), stream["name"]
        np.testing.assert_allclose(
            [pair.cost for pair in match.pairs], stream["expected"]["match_costs"], atol=1e-5
        )
        np.testing.assert_allclose(
            [pair.score for pair in match.pairs], stream["expected"]["semantic_scores"], atol=1e-5
        )


def test_costs_equal_the_reference_matrices(
    numbers: dict[str, Any], vectors: StoredVectors
) -> None:
    by_name = {s["name"]: s for s in numbers["streams"] + numbers["edge_streams"]}
    for entry in numbers["cost_matrices"]:
        stream = by_name[entry["stream"]]
        expected = np.array(entry["total_cost"], dtype=np.float64)  # null becomes nan: no edge
        gens = dense(stream, "gens")
        edges = candidate_edges(
            gens,
            dense(stream, "refs"),
            window_frames=tuple(stream["match_window_frames"]),
            similarity=vectors,
            config=config_of(stream),
        )
        found = np.full(expected.shape, np.nan)
        for row, frames, costs in zip(edges.gen_frames, edges.frames, edges.costs, strict=True):
            found[row, frames[np.isfinite(costs)]] = costs[np.isfinite(costs)]
        rows = [i for i, text in enumerate(gens) if text]
        np.testing.assert_allclose(found[rows], expected[rows], atol=1e-5)


def test_matching_is_the_optimum_where_the_reference_is_wrong(
    bugs: list[dict[str, Any]], vectors: StoredVectors
) -> None:
    checked = 0
    for case in bugs:
        if not isinstance(case["optimum"], dict):
            continue  # the input itself is not one of ours: a reference text of None
        match, found = match_of(case, vectors)
        assert found == discrete(case["optimum"]), case["name"]
        if np.isfinite(case["optimum"]["total_cost_all"]):
            assert match.total_cost == pytest.approx(case["optimum"]["total_cost_all"], abs=1e-4)
        checked += 1
    assert checked


def test_dropping_zero_costs_loses_perfect_pairs_as_the_reference_does(
    bugs: list[dict[str, Any]], vectors: StoredVectors
) -> None:
    # In the reference rounding decides which pairs of equal texts on one frame cost exactly zero,
    # so only the inputs where it hit all of them can be compared.
    cases = []
    for case in bugs:
        equal = [[int(i), int(i)] for i, t in case["gens"].items() if case["refs"].get(i) == t]
        hit_all = not case["use_sts"] or sorted(case.get("exact_zero_cost_pairs", [])) == equal
        if case["original"] and hit_all:
            cases.append(case)
    assert cases
    for case in cases:
        _, found = match_of(case, vectors, compat_drop_zero_cost=True)
        assert found == discrete(case["original"]), case["name"]
        assert match_of(case, vectors)[1] != found, case["name"]


def test_windows_equal_the_reference_table(numbers: dict[str, Any]) -> None:
    for dataset, expected in numbers["windows"].items():
        window = match_window(dataset)
        assert [window.start_s, window.end_s] == expected["seconds"], dataset
        assert list(window.frames(2.0)) == expected["frames_at_2fps"], dataset


def as_transcript(stream: dict[str, Any]) -> Transcript:
    frames = enumerate(zip(dense(stream, "gens"), dense(stream, "refs"), strict=True))
    outputs, references = [], []
    for i, (gen, ref) in frames:
        outputs.append(
            FrameOutput(
                frame_idx=i,
                time_s=i / stream["fps"],
                speak_prob=float(bool(gen)),
                dst_prob=None,
                speak=bool(gen),
                dst=False,
                text=gen,
            )
        )
        references.append(Reference(text=ref))
    return Transcript(
        stream_id=stream["name"],
        dataset=stream["dataset_name"],
        fps=stream["fps"],
        steps=(),
        frames=tuple(outputs),
        references=tuple(references),
    )


def test_aggregates_equal_the_reference(numbers: dict[str, Any], vectors: StoredVectors) -> None:
    by_name = {s["name"]: s for s in numbers["streams"]}
    ours = {
        "utterance_jaccard": "jaccard_index",
        "utterance_missing_rate": "missing_rate",
        "utterance_redundant_rate": "redundant_rate",
        "utterance_semantic_score": "semantic_score",
        "utterance_time_difference_s": "time_diff",
        "utterance_precision": "precision",
        "utterance_recall": "recall",
        "utterance_f1": "F1",
        "utterance_num_matched": "num_matched",
        "utterance_num_mismatched": "num_mismatched",
        "utterance_num_missed": "num_missed",
        "utterance_num_redundant": "num_redundant",
        "utterance_cider": "CIDEr",
        **{f"utterance_bleu_{order}": f"Bleu_{order}" for order in range(1, 5)},
    }
    for aggregate in numbers["aggregates"]:
        metric, texts = UtteranceMetrics(Matcher(vectors)), TextPairMetrics("utterance")
        for name in aggregate["streams"]:
            stream = by_name[name]
            config = config_of(stream)
            config.semantic_threshold = aggregate["match_semantic_score_threshold"]
            match = match_utterances(
                dense(stream, "gens"),
                dense(stream, "refs"),
                window_frames=tuple(stream["match_window_frames"]),
                similarity=vectors if stream["use_sts"] else None,
                config=config,
            )
            metric.update([as_transcript(stream)], [match])
            texts.update(matched_texts([as_transcript(stream)], [match]))
        found = metric.compute() | texts.compute()
        for key, theirs in ours.items():
            if key.startswith(("utterance_bleu", "utterance_cider")) and key not in found:
                assert aggregate["metrics"]["num_matched"] == 0
                continue
            assert found[key] == pytest.approx(aggregate["metrics"][theirs], abs=1e-6), key
