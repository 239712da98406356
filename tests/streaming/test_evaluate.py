from __future__ import annotations

import pytest
import torch
from torch import Tensor

from proassist_lit.errors import StreamError
from proassist_lit.streaming.config import StreamConfig
from proassist_lit.streaming.engine import Engine
from proassist_lit.streaming.evaluate import stream_conversation, stream_conversations
from tests.fakes import dialogue, random_features, tiny_model, word_chat


@pytest.mark.parametrize("fits", [True, False], ids=["engine", "sessions"])
def test_one_bad_stream_does_not_stop_the_others(
    fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "fits", staticmethod(lambda _: fits))
    model, chat = tiny_model(), word_chat()
    records = [dialogue(video_uid=f"video{i}") for i in range(3)]
    inputs = [random_features(10, seed=i) for i in range(3)]
    inputs[1][4] = float("nan")
    config = StreamConfig(theta_speak=0.6, theta_dst=0.6, max_new_tokens=5, max_dst_tokens=5)
    counted: list[int] = []

    def features(number: int) -> Tensor:
        return inputs[number]

    answered = stream_conversations(
        model, chat, records, features, config, num_tokens_per_img=1, on_frames=counted.append
    )
    done = {}
    with pytest.raises(StreamError, match="video1.*frame 14: features hold NaN"):
        for number, transcript in answered:
            done[number] = transcript

    assert sorted(done) == [0, 2]
    assert sum(counted) == 24
    for number, transcript in done.items():
        alone = stream_conversation(model, chat, records[number], inputs[number], config)
        for got, want in zip(transcript.frames, alone.frames, strict=True):
            assert (got.speak, got.text, got.updates) == (want.speak, want.text, want.updates)
            torch.testing.assert_close(got.speak_prob, want.speak_prob, rtol=0, atol=1e-6)
