from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from benchmarks.paper import runner
from proassist_lit.commands import encode
from proassist_lit.data import generate
from proassist_lit.data.sources.toy import ToyConfig
from proassist_lit.processors import num_processors
from tests.data.generated import data_config


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """One processor of eight is this process's."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)


@pytest.mark.usefixtures("bound")
def test_processors_that_are_left_to_others_do_not_count() -> None:
    assert num_processors() == 1
    assert runner.num_processors is num_processors
    parser = argparse.ArgumentParser()
    encode.add_parser(parser.add_subparsers())
    assert parser.parse_args(["encode", "in", "--encoder", "e", "--out", "o"]).workers == 1


@pytest.mark.usefixtures("bound")
def test_recordings_are_drawn_by_no_more_processes_than_may_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[object] = []
    monkeypatch.setattr(generate, "_draw_one", drawn.append)
    monkeypatch.setattr(generate, "ProcessPoolExecutor", None)
    generate.generate(data_config(tmp_path, toy=ToyConfig(num_train=30, num_val=2, num_test=2)))
    assert len(drawn) == 34


@pytest.mark.parametrize(("known", "wanted"), [(6, 6), (None, 1)])
def test_all_count_where_the_system_bounds_no_process(
    known: int | None, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: known)
    assert num_processors() == wanted
