from __future__ import annotations

from copy import copy

import pytest

from proassist_lit.streaming.pace import Pace


def watched(*fired: bool) -> Pace:
    pace = Pace()
    for decided in fired:
        pace.note(decided)
    return pace


def ahead(pace: Pace, *, step_rows: float = 7.5, tokens: int = 1) -> float:
    return pace.frames_ahead(step_rows, tokens)


def test_blocks_weigh_steps_against_frames_in_vain() -> None:
    pace = watched(*[False] * 24, True)  # a span every 25 frames
    assert ahead(pace) == pytest.approx((2 * 8.0 * 25) ** 0.5)  # half a token is for looking back

    def cost(block: float) -> float:
        return 8.0 * 25 / block + (block - 1) / 2

    assert cost(ahead(pace)) < min(cost(ahead(pace) - 1), cost(ahead(pace) + 1))
    assert ahead(pace, tokens=4) == pytest.approx(ahead(pace) / 2)


def test_the_usual_gap_follows_the_spans() -> None:
    often, seldom = [*[False] * 4, True], [*[False] * 39, True]
    assert ahead(watched(*often)) < ahead(watched(*often, *seldom)) < ahead(watched(*seldom))


def test_a_silence_that_lasts_makes_longer_blocks() -> None:
    assert ahead(watched()) < ahead(watched(*[False] * 30))
    spoke = (*[False] * 4, True)
    assert ahead(watched(*spoke, *[False] * 20)) == pytest.approx((2 * 8.0 * 20) ** 0.5)


def test_a_copy_goes_its_own_way() -> None:
    pace = watched(*[False] * 10)
    other = copy(pace)
    before = ahead(pace)
    other.note(True)
    assert ahead(pace) == before != ahead(other)
