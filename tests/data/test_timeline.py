from __future__ import annotations

from proassist_lit.data.timeline import Step, Timeline, event_frame


def test_events_land_on_the_first_frame_at_or_after_their_time() -> None:
    assert [event_frame(t, 2.0) for t in (0.0, 0.01, 0.5, 0.50001, 0.99, 1.0)] == [0, 1, 1, 2, 2, 2]
    assert event_frame(0.1 + 0.2, 10.0) == 3  # 0.30000000000000004
    assert event_frame(-1.0, 2.0) == 0


def test_performed_steps_come_in_the_order_of_their_beginnings_without_the_skipped() -> None:
    spans = [("S1", 4.0, 9.0), ("S2", None, None), ("S3", 1.0, 2.0), ("S4", 4.0, 5.0)]
    steps = [
        Step(id=i, name="wash it", verb="wash", item="it", start_s=start_s, end_s=end_s)
        for i, start_s, end_s in spans
    ]
    timeline = Timeline(
        dataset="toy", video_uid="v", task="wash", duration_s=9.0, steps=tuple(steps)
    )

    assert [step.id for step in timeline.performed()] == ["S3", "S1", "S4"]
