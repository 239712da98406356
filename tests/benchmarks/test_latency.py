from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import latency
from proassist_lit.streaming.cache import KVCache
from proassist_lit.streaming.decoder import make_decoder

CONTEXTS = (48, 96)
K = 5


def measured(*arguments: str) -> dict[str, Any]:
    contexts = ",".join(map(str, CONTEXTS))
    shown = ["--quick", "--device", "cpu", "--contexts", contexts, "--words", "4", *arguments]
    return latency.measure(latency.parse(shown))


def test_latency_measures_both_sides_at_every_context() -> None:
    found = measured("--frames", "6")

    assert set(found) == {
        "benchmark", "ratio", "baseline", "ours", "encoder", "prob_difference", "settings",
        "machine",
    }  # fmt: skip
    assert found["prob_difference"] < 1e-4  # the same frames after the same context
    for context in map(str, CONTEXTS):
        ours, theirs = found["ours"][context], found["baseline"][context]
        assert ours["frames"] == theirs["frames"] == 6
        assert ours["utterances"] > 0
        times = [ours[name] for name in ("frame_ms", "first_token_ms", "token_ms")]
        for ms in [*times, theirs["frame_ms"], found["encoder"]["ms"]]:
            assert 0 < ms["p50"] <= ms["p95"] <= ms["p99"] < 10_000
    longest = str(max(CONTEXTS))
    p50 = [found[side][longest]["frame_ms"]["p50"] for side in ("baseline", "ours")]
    assert found["ratio"] == pytest.approx(p50[0] / p50[1], abs=0.01)


class Clock:
    """Moves by a second per token that ours is fed, and by two per token of the baseline's."""

    def __init__(self) -> None:
        self.now = 0.0
        self.models: list[Any] = []

    def __call__(self) -> float:
        return self.now

    def decoder(self, model: Any) -> Any:
        decode = make_decoder(model)

        def slow(inputs_embeds: Tensor, cache: KVCache) -> Tensor:
            self.now += len(inputs_embeds)
            return decode(inputs_embeds, cache)

        if model not in self.models:  # a decoder is made for every context
            self.models.append(model)
            model.lm.register_forward_pre_hook(self.forward, with_kwargs=True)
        return slow

    def forward(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self.now += 2 * kwargs["inputs_embeds"].shape[1]


def test_latency_times_frames_and_tokens_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(latency, "perf_counter", clock)
    monkeypatch.setattr(latency, "make_decoder", clock.decoder)

    found = measured("--frames", "7", "--tokens", str(K))

    def always(tokens: int) -> dict[str, float]:
        return dict.fromkeys(("p50", "p95", "p99"), 1000.0 * tokens)

    for context in map(str, CONTEXTS):
        ours, theirs = found["ours"][context], found["baseline"][context]
        assert ours["frame_ms"] == always(K)
        assert ours["first_token_ms"] == always(K + 1)  # the frame and the opening
        assert ours["token_ms"] == always(1)
        assert theirs["frame_ms"] == always(2 * K)
    assert found["ratio"] == 2.0
    assert found["encoder"]["ms"] == always(0)


def test_contexts_are_filled_to_the_token() -> None:
    model, chat = latency.build("tiny", device=torch.device("cpu"), dtype=torch.float32)
    frames = latency.features(0, 4, K)

    with torch.inference_mode():
        live = latency.Live(
            model, chat, context=CONTEXTS[1], frame=frames[0], num_silent=3, max_new_tokens=4
        )
        baseline = latency.Baseline(model, live.filled_with)
        for _ in range(2):
            live.round(frames[1:])
            baseline.round(frames[1:])

    assert len(live.filled_with) == CONTEXTS[1]
    assert live.probs[:3] == live.probs[3:]  # every round begins at the same context
    assert len(set(live.probs)) == 3
    assert baseline.probs == pytest.approx(live.probs, abs=1e-5)
    assert len(live.frame_s) == len(baseline.frame_s) == 2 * (3 - latency.UNTIMED)


def test_rounds_hold_all_frames_and_stay_near_the_context() -> None:
    assert list(latency.rounds(1000, 12, 10)) == [5, 5, 2]
    assert list(latency.rounds(10, 2, 10)) == [1, 1]
    assert list(latency.rounds(1000, 25, 1)) == [10, 10, 5]


def test_a_context_shorter_than_the_prompt_is_refused() -> None:
    with pytest.raises(SystemExit, match="choose a longer context"):
        latency.measure(latency.parse(["--quick", "--device", "cpu", "--contexts", "8"]))


def test_quick_is_small_unless_told_otherwise() -> None:
    quick, told = latency.parse(["--quick"]), latency.parse(["--quick", "--contexts", "64,128"])
    usual = latency.parse([])

    assert (quick.shape, quick.contexts, quick.frames) == ("tiny", [256, 1024], 30)
    assert (told.shape, told.contexts) == ("tiny", [64, 128])
    assert (usual.shape, usual.contexts, usual.frames) == ("smollm2", [1024, 4096, 8192], 100)
