from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from proassist_lit.sweep.settings import SearchSettings
from proassist_lit.sweep.space import SearchSpace
from proassist_lit.sweep.study import STUDY_NAME, Study, open_storage
from proassist_lit.sweep.trial import VARIABLE, Trial


def trial(folder: Path, number: int, prune_by: str = "val/loss", warmup_steps: int = 0) -> Trial:
    return Trial(folder=str(folder), number=number, prune_by=prune_by, pruner="median",
                 warmup_trials=2, warmup_steps=warmup_steps)  # fmt: skip


@pytest.fixture(autouse=True)
def begun(quick_study: Callable[[Path], None], tmp_path: Path) -> None:
    quick_study(tmp_path)


def ask(folder: Path, direction: str = "maximize") -> list[int]:
    """Begin a search of four trials, two of which have a value of their own."""
    with open_storage(folder) as storage:
        space = SearchSpace.of({}, ["seed=1,2"])
        study = Study(storage, folder, SearchSettings(direction=direction), space)
        return [study.ask().number for _ in range(4)]


def tell(folder: Path, number: int) -> None:
    with open_storage(folder) as storage:
        Study(storage, folder, SearchSettings(), SearchSpace.of({}, ["seed=1,2"])).tell(number, 0.5)


@pytest.mark.parametrize(
    ("prune_by", "values"),
    [("val/loss", (1.0, 2.0, 3.0, 1.2)), ("val_stream/utterance_f1", (0.9, 0.5, 0.1, 0.8))],
)
def test_trial_ends_where_it_is_worse_than_half_of_the_others(
    tmp_path: Path, prune_by: str, values: tuple[float, ...]
) -> None:
    ask(tmp_path)
    for number in (0, 1):
        assert not trial(tmp_path, number, prune_by).report(values[number], 100)
        tell(tmp_path, number)

    assert trial(tmp_path, 2, prune_by).report(values[2], 100)
    assert not trial(tmp_path, 2, prune_by, warmup_steps=101).report(values[2], 100)
    assert not trial(tmp_path, 3, prune_by).report(values[3], 100)


def test_trial_goes_on_until_enough_are_complete(tmp_path: Path) -> None:
    ask(tmp_path)
    assert not trial(tmp_path, 0).report(1.0, 100)
    tell(tmp_path, 0)
    assert not trial(tmp_path, 2).report(9.0, 100)


def test_value_is_turned_to_the_direction_of_the_search(
    tmp_path: Path, quick_study: Callable[[Path], None]
) -> None:
    for direction, prune_by, kept in (
        ("maximize", "val/loss", -2.0), ("maximize", "val_stream/utterance_f1", 2.0),
        ("minimize", "val/loss", 2.0), ("minimize", "val_stream/utterance_f1", -2.0),
    ):  # fmt: skip
        folder = tmp_path / f"{direction}{prune_by[:5]}".replace("/", "")
        quick_study(folder)
        ask(folder, direction)
        trial(folder, 1, prune_by).report(2.0, 7)
        with open_storage(folder) as storage:
            reported = storage.get_all_trials(storage.get_study_id_from_name(STUDY_NAME))[1]
        assert reported.intermediate_values == {7: kept}


def test_step_reported_again_takes_the_place_of_the_first_report(tmp_path: Path) -> None:
    ask(tmp_path)
    for value in (float("nan"), 1.0, 3.0):
        trial(tmp_path, 0).report(value, 100)
    with open_storage(tmp_path) as storage:
        first = storage.get_all_trials(storage.get_study_id_from_name(STUDY_NAME))[0]
    assert first.intermediate_values == {100: -3.0}


def test_trial_goes_through_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert Trial.from_environment() is None
    one = trial(Path("/x y"), 3)
    monkeypatch.setenv(VARIABLE, one.to_text())
    assert Trial.from_environment() == one
