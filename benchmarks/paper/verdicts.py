"""Whether the runs of a study bear a claim out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import ttest_ind, ttest_rel

from benchmarks.paper.plan import Claim, Plan
from benchmarks.paper.results import Spread, Study
from proassist_lit.metrics.directions import lower_is_better

CHANCE = 0.05
"""A difference counts as seen if chance would make one so large less often than this."""

_ROUNDING = 1e-9  # numbers that differ by less are the same

BySeed = Mapping[int, float]


@dataclass(frozen=True)
class Verdict:
    """What became of a claim.

    Attributes:
        claim: itself.
        verdict: whether it, or its direction, agrees; or why that cannot be said.
        numbers: on what it rests.
        p: of the test over seeds; None where nothing was tested.
    """

    claim: Claim
    verdict: str
    numbers: str
    p: float | None = None


def judge(claim: Claim, study: Study, plan: Plan) -> Verdict:
    """Whether the runs bear ``claim`` out."""
    own = study.by_seed(claim.row, claim.metric)
    if claim.rises or claim.falls:
        return _along(claim, study)
    if not own:
        return Verdict(claim, "not run", "")
    if not claim.other:
        return _bound(claim, own, study)
    theirs = study.by_seed(claim.other, claim.metric)
    if not theirs:
        return Verdict(claim, "not run", "")
    labels = f" ({plan.rows[claim.row].label}, {plan.rows[claim.other].label})"
    numbers = f"{Spread.of(own)} against {Spread.of(theirs)}{labels}"
    return _compared(claim, own, theirs, numbers, paired=plan.same_models(claim.row, claim.other))


def _bound(claim: Claim, own: BySeed, study: Study) -> Verdict:
    """By the mean; how many seeds reach it stands beside."""
    factor = claim.at_least if claim.at_least is not None else claim.at_most
    assert factor is not None
    whole = dict.fromkeys(own, 1.0)
    if claim.share_of_own:
        whole = dict(study.by_seed(claim.row, claim.share_of_own))
        if whole.keys() != own.keys():
            return Verdict(claim, "not run", "")
    mean, bound = Spread.of(own).mean, factor * Spread.of(whole).mean
    at_least = claim.at_least is not None
    reached = [
        seed for seed, value in own.items()
        if (value >= factor * whole[seed] if at_least else value <= factor * whole[seed])
    ]  # fmt: skip
    agrees = mean >= bound if at_least else mean <= bound
    shown = f" ({factor:g} of {Spread.of(whole).mean:.3f})" if claim.share_of_own else ""
    seeds = f"; {len(reached)} of {len(own)} seeds" if len(own) > 1 else ""
    numbers = f"{Spread.of(own)}, {'≥' if at_least else '≤'} {bound:.3g}{shown}{seeds}"
    return Verdict(claim, "agrees" if agrees else "does not agree", numbers)


def _along(claim: Claim, study: Study) -> Verdict:
    """The metric at the highest threshold beside that at the lowest, of the same models."""
    curves = {run.seed: run.thresholds for run in study.runs[claim.row] if run.thresholds}
    if not curves:
        return Verdict(claim, "not run", "")
    low = {seed: curve[min(curve)][claim.metric] for seed, curve in curves.items()}
    high = {seed: curve[max(curve)][claim.metric] for seed, curve in curves.items()}
    thetas = {(min(curve), max(curve)) for curve in curves.values()}
    where = ", ".join(f"at {least:g}, at {most:g}" for least, most in sorted(thetas))
    numbers = f"{Spread.of(low)} against {Spread.of(high)} ({where})"
    larger, smaller = (high, low) if claim.rises else (low, high)
    return _compared(claim, larger, smaller, numbers, paired=True, less=False)


def _compared(
    claim: Claim, own: BySeed, theirs: BySeed, numbers: str, *, paired: bool,
    less: bool | None = None,
) -> Verdict:  # fmt: skip
    """``own`` beside ``theirs``; ``less``: the smaller one is the better."""
    less = lower_is_better(claim.metric) if less is None else less
    mine, others = Spread.of(own).mean, Spread.of(theirs).mean
    better = mine < others if less else mine > others
    p = chance_of(own, theirs, paired=paired)
    numbers += "" if p is None else f"; p = {p:.2g}{' (paired)' if paired else ''}"
    seen = p is not None and p < CHANCE
    if claim.same or claim.no_better:
        verdict = "agrees" if claim.no_better and not better else "does not agree"
        if p is None:
            verdict = "one seed, not tested"
        elif not seen:
            verdict = "no difference seen" if claim.same else "no gain seen"
        return Verdict(claim, verdict, numbers, p)
    verdict = "agrees" if better else "does not agree"
    if abs(mine - others) <= _ROUNDING:
        verdict = "no difference at all"
    elif p is None:
        verdict = f"direction {verdict}; one seed, not tested"
    elif not seen:
        verdict = f"direction {verdict}, not told apart"
    return Verdict(claim, verdict, numbers, p)


def chance_of(own: BySeed, theirs: BySeed, *, paired: bool) -> float | None:
    """Two-sided p of a t-test over seeds; None where there are fewer than two to test with.

    Args:
        own: numbers of one row.
        theirs: of the other.
        paired: whether those of one seed are of one trained model; otherwise the test is Welch's.
    """
    if paired:
        seeds = sorted(own.keys() & theirs.keys())
        one, two = [own[seed] for seed in seeds], [theirs[seed] for seed in seeds]
        varies = bool(seeds) and np.ptp(np.subtract(one, two)) > _ROUNDING
    else:
        one, two = list(own.values()), list(theirs.values())
        varies = max(np.ptp(one), np.ptp(two)) > _ROUNDING
    if min(len(one), len(two)) < 2:
        return None
    if not varies:  # no variance to divide by
        return 1.0 if abs(one[0] - two[0]) <= _ROUNDING else 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of one row that is the same in all seeds
        test = ttest_rel(one, two) if paired else ttest_ind(one, two, equal_var=False)
    return float(test.pvalue)
