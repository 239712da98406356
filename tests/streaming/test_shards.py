"""Two processes answer each its share, and all have all answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from proassist_lit.errors import StreamError
from proassist_lit.evaluation.config import EvaluationConfig
from proassist_lit.evaluation.evaluator import Evaluator
from proassist_lit.streaming.shards import bring_together, rank, share
from tests.evaluation.fakes import CONFIG, make_evaluator
from tests.fakes import tiny_model

WORLD = 2


def evaluator() -> Evaluator:
    """Two data sets, and thresholds to be chosen."""
    return make_evaluator(
        replace(CONFIG, theta_speak=None, theta_dst=None),
        EvaluationConfig(candidates=3),
        datasets=("toy", "wtag"),
    )


def test_one_process_does_all() -> None:
    assert share([3, 4, 5]) == [3, 4, 5]
    assert rank() == 0
    assert bring_together({1: "a"}) == {1: "a"}
    with pytest.raises(StreamError, match="video3"):
        bring_together({}, StreamError("video3"))


def one_of_two(number: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=WORLD
    )
    own: list[str] = []
    result = evaluator().evaluate(
        tiny_model(), on_stream=lambda split, t: own.append(f"{split} {t.stream_id}")
    )
    failure = ""
    try:
        bring_together({}, StreamError("a stream failed") if number == 1 else None)
    except StreamError as error:
        failure = str(error)
    found = (result.metrics, result.transcripts, result.sweep, own, failure)
    torch.save(found, folder / f"{number}.pt")
    distributed.destroy_process_group()


@pytest.mark.road
def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    alone = evaluator().evaluate(tiny_model())

    multiprocessing.spawn(one_of_two, args=(tmp_path,), nprocs=WORLD)

    seen: list[str] = []
    for number in range(WORLD):
        metrics, transcripts, sweep, own, failure = torch.load(
            tmp_path / f"{number}.pt", weights_only=False
        )
        assert metrics == pytest.approx(alone.metrics, abs=1e-6)  # sums in another order
        assert transcripts == alone.transcripts
        assert [p.metrics for p in sweep["val"]] == [
            pytest.approx(p.metrics, abs=1e-6) for p in alone.sweep["val"]
        ]
        assert failure == "a stream failed"  # no process waits for one that failed
        assert own
        seen += own
    assert sorted(seen) == sorted(
        f"{split} {t.stream_id}" for split, ts in alone.transcripts.items() for t in ts
    )
