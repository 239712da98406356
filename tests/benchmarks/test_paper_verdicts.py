from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.paper.plan import Claim
from benchmarks.paper.results import Study
from benchmarks.paper.run import Run
from benchmarks.paper.verdicts import chance_of, judge
from proassist_lit.metrics.directions import DIRECTIONS, Direction
from tests.benchmarks.paper_plans import claim, plan_of, study_of

HIGH, LOW = (0.8, 0.81, 0.82), (0.5, 0.51, 0.52)
NEAR = (0.5, 0.9, 0.7), (0.5, 0.8, 0.6)


@pytest.mark.parametrize(
    ("made", "one", "two", "verdict"),
    [
        (claim(better="two"), HIGH, LOW, "agrees"),
        (claim(better="two"), LOW, HIGH, "does not agree"),
        (claim(better="two"), *NEAR, "direction agrees, not told apart"),
        (claim(better="two"), *NEAR[::-1], "direction does not agree, not told apart"),
        (claim(better="two"), (0.8,), (0.5,), "direction agrees; one seed, not tested"),
        (claim(better="two"), (0.5, 0.6), (0.6 + 1e-15, 0.5), "no difference at all"),
        (claim(same="two"), *NEAR, "no difference seen"),
        (claim(same="two"), HIGH, LOW, "does not agree"),
        (claim(same="two"), (0.8,), (0.5,), "one seed, not tested"),
        (claim(no_better="two"), *NEAR, "no gain seen"),
        (claim(no_better="two"), HIGH, LOW, "does not agree"),
        (claim(no_better="two"), LOW, HIGH, "agrees"),
        (claim(no_better="two"), (0.8,), (0.5,), "one seed, not tested"),
        (claim(at_least=0.9), (0.8, 1.0), (), "agrees"),
        (claim(at_least=0.9), (0.8, 0.9), (), "does not agree"),
        (claim(at_most=0.9), (0.8, 1.0), (), "agrees"),
        (claim(at_most=0.5, share_of_own="utterance_f1"), (0.8, 1.0), (), "does not agree"),
        (claim(better="two"), (0.8, 1.0), (), "not run"),
        (claim(at_least=0.9), (), (), "not run"),
        (claim(rises=True), HIGH, (), "not run"),
    ],
)
def test_claims_are_computed(
    made: Claim, one: tuple[float, ...], two: tuple[float, ...], verdict: str, tmp_path: Path
) -> None:
    study = study_of(tmp_path, {"one": one, "two": two}, plan_of())
    assert judge(made, study, plan_of()).verdict == verdict


def test_less_is_better_where_the_metric_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(tmp_path, {"one": (0.5, 0.51), "two": (0.8, 0.81)}, plan_of())
    assert judge(claim(better="two"), study, plan_of()).verdict == "does not agree"
    monkeypatch.setitem(DIRECTIONS, "utterance_f1", Direction.LOWER)
    assert judge(claim(better="two"), study, plan_of()).verdict == "agrees"


@pytest.mark.parametrize(
    ("made", "count"),
    [
        (claim(at_least=0.8), "; 1 of 3 seeds"),
        (claim(at_most=0.75), "; 2 of 3 seeds"),
        (claim(at_least=1.0, share_of_own="utterance_f1"), "; 3 of 3 seeds"),
    ],
)
def test_how_many_seeds_reach_a_bound_stands_beside(
    made: Claim, count: str, tmp_path: Path
) -> None:
    study = study_of(tmp_path, {"one": (0.7, 0.75, 0.9)}, plan_of())
    assert judge(made, study, plan_of()).numbers.endswith(count)


def test_chance_is_that_of_welch_and_of_pairs_where_the_models_are_the_same(
    tmp_path: Path,
) -> None:
    one, two = dict(enumerate(HIGH)), dict(enumerate(LOW))
    # t = 0.3 / sqrt(2 * 0.01^2 / 3) = 36.7 with 4 degrees of freedom; p from a table of t
    assert chance_of(one, two, paired=False) == pytest.approx(3.2e-6, rel=0.05)
    # Differences 0.1, 0.2, 0.3: t = 0.2 / (0.1 / sqrt(3)) = 3.46 with 2 degrees of freedom
    assert chance_of({1: 0.1, 2: 0.4, 3: 0.9}, {3: 0.6, 1: 0.0, 2: 0.2}, paired=True) == (
        pytest.approx(0.0742, rel=0.01)
    )
    assert chance_of({1: 0.5, 2: 0.6}, {2: 0.6 + 1e-15, 1: 0.5}, paired=True) == 1.0
    assert chance_of({1: 0.75, 2: 1.0}, {1: 0.5, 2: 0.75}, paired=True) == 0.0
    same = dict.fromkeys(range(3), 1 / 3)  # pytest would make an error of a warning
    assert chance_of(same, {0: 0.5, 1: 0.6, 2: 0.7}, paired=False) == pytest.approx(
        0.0442, rel=0.01
    )
    assert chance_of({1: 0.75}, {1: 0.5, 2: 0.75}, paired=True) is None
    assert chance_of({1: 0.75}, {1: 0.5, 2: 0.75}, paired=False) is None

    # Far apart from seed to seed, but always a little better: only as pairs that is seen.
    values = {"one": (0.2, 0.5, 0.9), "again": (0.1, 0.41, 0.79), "two": (0.1, 0.41, 0.79)}
    study = study_of(tmp_path, values, plan_of())
    own = judge(claim(better="again"), study, plan_of())
    assert own.verdict == "agrees"
    assert own.numbers.endswith(" (paired)")
    assert judge(claim("again", better="one"), study, plan_of()).verdict == "does not agree"
    other = judge(claim(better="two"), study, plan_of())
    assert other.verdict == "direction agrees, not told apart"
    assert "paired" not in other.numbers


@pytest.mark.parametrize(
    ("made", "verdict"),
    [
        (claim(rises=True), "agrees"),
        (claim(falls=True), "does not agree"),
    ],
)
def test_what_changes_along_the_thresholds_is_computed(
    made: Claim, verdict: str, tmp_path: Path
) -> None:
    def run(seed: int) -> Run:
        shares = {0.9: 0.8 + seed / 100, 0.5: 0.0, 0.1: 0.5}
        thresholds = {theta: {"utterance_f1": share} for theta, share in shares.items()}
        return Run(row="one", seed=seed, split="val", metrics={}, thresholds=thresholds)

    (tmp_path / "study").mkdir()
    study = Study(tmp_path / "study", plan_of(), [run(1), run(2), run(3)])
    found = judge(made, study, plan_of())
    assert found.verdict == verdict
    assert found.numbers.startswith("0.500 ± 0.000 against 0.820 ± 0.010 (at 0.1, at 0.9); p = ")
