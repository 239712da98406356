from __future__ import annotations

from proassist_lit.report.from_run import decisions_by_split
from proassist_lit.streaming.config import SpeakRule, StreamConfig
from proassist_lit.types import FrameOutput, Reference, Transcript


def test_decisions_are_exact_at_the_thresholds_of_the_run() -> None:
    n, theta_speak, theta_dst = 4001, 0.40321, 0.70654
    probs = [i / (n - 1) for i in range(n)]
    transcript = Transcript(
        stream_id="s",
        dataset="toy",
        fps=2.0,
        steps=(),
        frames=tuple(
            FrameOutput(frame_idx=i, time_s=i / 2, speak_prob=p, dst_prob=p, speak=False, dst=False)
            for i, p in enumerate(probs)
        ),
        references=tuple(Reference(speak_label=i % 2, dst_label=i % 2) for i in range(n)),
    )
    config = StreamConfig(theta_speak=theta_speak, theta_dst=theta_dst)
    curves = decisions_by_split({"test": [transcript], "val": []}, config)
    assert curves["val"] == {}
    by_sum = StreamConfig(theta_speak=theta_speak, theta_dst=theta_dst, rule=SpeakRule.RUNNING_SUM)
    found = decisions_by_split({"test": [transcript]}, by_sum)["test"]
    assert found["dst"] == curves["test"]["dst"]
    assert len(found["speak"].thresholds) == len(curves["test"]["speak"].thresholds) - 1
    for head, theta in (("speak", theta_speak), ("dst", theta_dst)):
        known = curves["test"][head].thresholds
        assert len(known) < n
        assert min(p for p in probs if p >= theta) in known
