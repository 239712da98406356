"""Two processes answer each its share, and all have all answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing

from proassist_lit.data.config import DataConfig
from proassist_lit.data.conversation import Conversation
from proassist_lit.data.dataset import ConversationSet
from proassist_lit.errors import FeatureError, StreamError
from proassist_lit.evaluation.config import EvaluationConfig
from proassist_lit.evaluation.evaluator import Evaluator
from proassist_lit.streaming import shards
from proassist_lit.streaming.shards import (
    bring_together,
    rank,
    share,
    share_by_size,
    work_shared,
)
from tests.evaluation.fakes import CONFIG, make_evaluator
from tests.evaluation.test_full_contexts import NARROW, with_short_stream
from tests.fakes import dialogue, random_features, tiny_model

WORLD = 2


def evaluator() -> Evaluator:
    """Two data sets, and thresholds to be chosen."""
    return make_evaluator(
        replace(CONFIG, theta_speak=None, theta_dst=None),
        EvaluationConfig(candidates=3),
        datasets=("toy", "wtag"),
    )


def narrowing() -> Evaluator:
    """One of its two thresholds fills the contexts."""
    return make_evaluator(NARROW, EvaluationConfig(candidates=1, sweep_speak=[0.0]))


def test_one_process_does_all() -> None:
    assert share([3, 4, 5]) == [3, 4, 5]
    assert rank() == 0
    assert bring_together({1: "a"}) == {1: "a"}
    with pytest.raises(StreamError, match="video3"):
        bring_together({}, StreamError("video3"))
    assert work_shared(str, [1, 1]) == {0: "0", 1: "1"}


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([1, 1, 1, 1, 1], [[0, 3], [1, 4], [2]]),
        ([10, 10, 40, 10, 10, 10, 10], [[2], [0, 3, 5], [1, 4, 6]]),
        ([5], [[0], [], []]),
    ],
)
def test_every_process_has_nearly_as_much_to_do(
    sizes: list[int], expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_are_many", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 3)
    for process, numbers in enumerate(expected):
        monkeypatch.setattr(distributed, "get_rank", lambda process=process: process)
        assert share_by_size(sizes) == numbers
        assert share("abcdefg"[:5]) == [["a", "d"], ["b", "e"], ["c"]][process]


class DamagedSet(ConversationSet):
    """Its second conversation, that of the second process, has no features."""

    def features(self, conversation: Conversation) -> Tensor:
        if conversation.video_uid == "bad":
            raise FeatureError("bad: damaged")
        return random_features(10)


def failure(ask: Callable[[], object]) -> str:
    try:
        ask()
    except FeatureError as error:
        return str(error)
    return ""


def one_of_two(number: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=WORLD,
        timeout=timedelta(seconds=60),
    )  # fmt: skip
    own: list[str] = []
    evaluating = evaluator()
    result = evaluating.evaluate(
        tiny_model(),
        on_stream=lambda split, t: own.append(f"{split} {t.stream_id}"),
        answers=folder / "answers",
    )
    if number == 0:  # who writes the results
        assert list((folder / "answers").iterdir())
        evaluating.clear_answers()
    narrow = with_short_stream()
    half = narrow.quick(tiny_model(), 3)
    swept = narrowing().evaluate(tiny_model())
    forcing, model = evaluator()._forcing, tiny_model()
    damaged = DamagedSet("val", (dialogue(), dialogue(video_uid="bad")), Path(), DataConfig())
    failures = [
        failure(lambda: forcing.decisions(model, damaged)),
        failure(lambda: forcing.scores(model, damaged, 0.5)),
    ]
    full = (half.transcripts, swept.transcripts, [p.theta_speak for p in swept.sweep["val"]])
    found = (result.metrics, result.transcripts, result.sweep, own, failures, full)
    torch.save(found, folder / f"{number}.pt")
    distributed.destroy_process_group()


@pytest.mark.road
def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    alone = evaluator().evaluate(tiny_model())
    with pytest.warns(UserWarning, match="fill their context"):
        half = with_short_stream().quick(tiny_model(), 3)
    with pytest.warns(UserWarning, match="fills its context"):
        swept = narrowing().evaluate(tiny_model())

    multiprocessing.spawn(one_of_two, args=(tmp_path,), nprocs=WORLD)

    assert not (tmp_path / "answers").exists()  # nor those of the second process
    seen: list[str] = []
    for number in range(WORLD):
        metrics, transcripts, sweep, own, failures, full = torch.load(
            tmp_path / f"{number}.pt", weights_only=False
        )
        assert metrics == pytest.approx(alone.metrics, abs=1e-6)  # sums in another order
        assert transcripts == alone.transcripts
        assert [p.metrics for p in sweep["val"]] == [
            pytest.approx(p.metrics, abs=1e-6) for p in alone.sweep["val"]
        ]
        # what one process's stream does not fit all leave out
        assert full == (half.transcripts, swept.transcripts, [1.0])
        assert failures == ["bad: damaged"] * 2  # no process waits for one that failed
        assert own
        seen += own
    assert sorted(seen) == sorted(
        f"{split} {t.stream_id}" for split, ts in alone.transcripts.items() for t in ts
    )
