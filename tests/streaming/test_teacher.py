from __future__ import annotations

import pytest
import torch

from proassist_lit.sequence.builder import build_sequence
from proassist_lit.sequence.script import read_script
from proassist_lit.streaming.teacher import teacher_force
from tests.fakes import dialogue, random_features, tiny_model, word_chat


@pytest.mark.parametrize("k", [1, 5])
def test_teacher_forced_probabilities_are_those_of_growing_prefixes(k: int) -> None:
    model, chat, features = (
        tiny_model(),
        word_chat("chatml", separator=True),
        random_features(10, k),
    )
    sequence = build_sequence(read_script(dialogue()), chat, num_tokens_per_img=k, max_seq_len=4096)

    forced = teacher_force(model, sequence, features)

    for frame, position in enumerate(sequence.decision_positions.tolist()):
        with torch.no_grad():
            embeds = model.embed(
                sequence.input_ids[None, : position + 1],
                sequence.image_mask[None, : position + 1],
                features[: frame + 1].flatten(0, 1),
            )
            hidden = model.hidden_states(embeds)[0, -1]
            speak, dst = model.speak_head(hidden).sigmoid(), model.dst_head(hidden).sigmoid()
        assert float(forced.speak_probs[frame]) == pytest.approx(float(speak), abs=1e-7)
        assert float(forced.dst_probs[frame]) == pytest.approx(float(dst), abs=1e-7)
    assert torch.equal(forced.speak_labels, sequence.speak_labels)
    assert torch.equal(forced.dst_labels, sequence.dst_update_labels)


def test_teacher_force_reads_the_frames_that_were_kept() -> None:
    model, chat, features = tiny_model(dst=False), word_chat(), random_features()
    script = read_script(dialogue())
    whole = build_sequence(script, chat, num_tokens_per_img=1, max_seq_len=4096)
    cut = build_sequence(script, chat, num_tokens_per_img=1, max_seq_len=30)

    forced = teacher_force(model, cut, features)

    assert 1 < len(forced.speak_probs) < 10
    assert forced.dst_probs is None
    all_probs = teacher_force(model, whole, features).speak_probs
    torch.testing.assert_close(forced.speak_probs, all_probs[: len(forced.speak_probs)])
