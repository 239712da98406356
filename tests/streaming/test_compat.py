from __future__ import annotations

from typing import Any

import pytest

from proassist_lit.errors import ConfigError
from proassist_lit.streaming.compat import check_counterparts, reference_config
from proassist_lit.streaming.config import ContextSource, SpeakRule, Strategy, StreamConfig
from proassist_lit.streaming.reference_context import STRATEGIES, ReferenceConfig


def settings(**changes: Any) -> StreamConfig:
    return StreamConfig(**{"theta_speak": 0.75, "strategy": Strategy.DROP_MIDDLE, **changes})


def test_every_setting_reaches_its_counterpart() -> None:
    config = settings(
        context=ContextSource.REFERENCE, max_context=3000, reserve=200, window_tokens=70,
        max_new_tokens=33, max_summary_tokens=44,
    )  # fmt: skip

    assert reference_config(config) == ReferenceConfig(
        strategy="drop_middle",
        eval_max_seq_len=3000,
        reserved_seq_len=200,
        last_keep_len=70,
        not_talk_threshold=0.25,
        use_gt_context=True,
        max_length=33,
        summary_max_length=44,
    )
    assert not reference_config(settings()).use_gt_context


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategies_keep_their_names(name: str) -> None:
    assert reference_config(settings(strategy=Strategy(name))).strategy == name


@pytest.mark.parametrize("rise", [0.0, 1e-5, 0.3])
def test_a_rise_is_the_references_difference(rise: float) -> None:
    config = reference_config(settings(theta_speak=None, rise=rise))

    assert config.fall == rise
    assert reference_config(settings()).fall is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": Strategy.DST_REFRESH},
         r"compat=proassist with stream\.strategy=dst_refresh: .*"
         r"choose stream\.strategy=drop_middle \(or none, drop_all, summarize\)"),
        ({"words": False, "context": ContextSource.REFERENCE},
         r"stream\.words=false: .*set stream\.words=true"),
        ({"min_gap_frames": 3}, r"stream\.min_gap_frames=3: .*set stream\.min_gap_frames=0"),
        ({"stride": 2}, r"stream\.stride=2: .*set stream\.stride=1"),
        ({"rule": SpeakRule.Z_SCORE}, r"stream\.rule=z_score: .*set stream\.rule=threshold"),
    ],
    ids=["strategy", "words", "gap", "stride", "rule"],
)  # fmt: skip
def test_what_the_reference_does_not_know_is_refused(changes: dict, message: str) -> None:
    for check in (check_counterparts, reference_config):
        with pytest.raises(ConfigError, match=message) as error:
            check(settings(**changes))
        assert len(str(error.value).splitlines()) == 1


def test_everything_that_it_does_not_know_is_said_at_once() -> None:
    config = settings(strategy=Strategy.DST_REFRESH, min_gap_frames=1, stride=2)

    with pytest.raises(ConfigError) as error:
        check_counterparts(config)

    named = [line.split("=")[1].split(" ")[-1] for line in str(error.value).splitlines()]
    assert named == ["stream.strategy", "stream.min_gap_frames", "stream.stride"]


def test_thresholds_may_be_missing_until_a_stream_begins() -> None:
    config = settings(theta_speak=None)

    check_counterparts(config)
    with pytest.raises(ConfigError, match=r"stream\.theta_speak is not set; set it, or let"):
        reference_config(config)
