"""Every fault of the reference that is known by name: which test sees ours do it right."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import pytest

from tests.parity import test_dst as dst
from tests.parity import test_dst_losses as dst_losses
from tests.parity import test_losses as losses
from tests.parity import test_streaming_faults as streaming
from tests.parity.numbers import needs, numbers

pytestmark = needs("known_reference_bugs.json")

FAULTS = numbers("known_reference_bugs.json")

SEEN_BY: Mapping[str, Mapping[str, Callable[..., None]]] = {
    "streaming": {
        "diff_threshold_first_frame": streaming.test_differences_need_no_frame_before_the_first,
    },
    "streaming_quirks": {
        "eos_never_enters_context_without_separator":
            streaming.test_the_end_of_turn_enters_our_context,
        "drop_middle_rope": streaming.test_kept_keys_of_ours_are_rotated_to_their_new_places,
        "drop_middle_every_frame": streaming.test_drop_middle_of_ours_makes_room,
        "summary_may_be_empty":
            streaming.test_summary_of_ours_is_written_whatever_the_head_says,
        "summary_drops_pending_message":
            streaming.test_summary_of_ours_keeps_what_the_reference_said,
        "summary_updates_last_prob":
            streaming.test_summary_of_ours_is_written_whatever_the_head_says,
        "summary_feeds_frame_twice":
            streaming.test_summary_of_ours_is_written_whatever_the_head_says,
        "assistant_turns_lost_in_stream": streaming.test_no_assistant_turn_of_ours_is_lost,
        "no_bos_without_message": streaming.test_every_context_of_ours_begins_with_bos,
        "max_length_buffer_view": streaming.test_generated_tokens_stay_when_more_are_generated,
        "useless_loss_in_inference": streaming.test_silent_frames_of_ours_cost_no_vocabulary,
    },
    "dst": {
        "eos_masked_when_pad_is_eos":
            dst.test_the_end_of_turn_is_learnt_where_the_reference_hides_it,
        "float32_model_fails": dst_losses.test_the_four_losses_equal_the_reference,
        "undefined_names_in_monitor": dst_losses.test_a_batch_without_dst_labels_has_losses,
        "user_turns_never_in_input": dst.test_what_the_user_says_is_kept,
    },
    "losses": {
        "binary_head_no_positive_frames":
            losses.test_a_batch_without_frames_to_speak_at_keeps_the_silent_ones,
        "binary_head_no_negative_frames":
            losses.test_a_batch_without_silent_frames_keeps_those_to_speak_at,
        "truncation_with_binary_head":
            losses.test_a_cut_batch_has_finite_losses_and_no_label_behind_the_cut,
        "binary_head_labels_without_masks": losses.test_labels_without_masks_stay_labels,
        "w2t_logit_weight_without_neg_mask": losses.test_losses_and_gradients_equal_the_reference,
    },
}  # fmt: skip
"""Test by section and name. Those of "chat" and "matching" are read case by case instead."""


@pytest.mark.parametrize(
    ("section", "name"),
    [(section, fault["name"]) for section in SEEN_BY for fault in FAULTS.get(section, [])],
)
def test_every_fault_is_seen(section: str, name: str) -> None:
    if name not in SEEN_BY[section] and os.environ.get("PROASSIST_PARITY_DIR"):
        pytest.skip(f"these numbers know {name!r} of {section!r}, which no test sees yet")
    assert name in SEEN_BY[section], "write a test that sees it, and name it here"
