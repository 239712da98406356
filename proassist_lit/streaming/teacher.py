"""Teacher-forced pass: decisions of every frame with the reference dialogue as context."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from proassist_lit.model.assistant import AssistantModel
from proassist_lit.sequence.builder import TokenSequence


@dataclass(frozen=True)
class TeacherForced:
    """Probabilities of one conversation, beside their labels."""

    speak_probs: Tensor  # (F,) float32, P(speak)
    dst_probs: Tensor | None  # (F,) float32, P(update)
    speak_labels: Tensor  # (F,) int8; 1, 0, or -1 for neither
    dst_labels: Tensor  # (F,) int8


@torch.inference_mode()
def teacher_force(
    model: AssistantModel, sequence: TokenSequence, features: Tensor
) -> TeacherForced:
    """Read both heads at every frame in one forward pass.

    Args:
        model: in evaluation mode.
        sequence: the conversation as the builder writes it; F frames.
        features: (at least F, K, E).
    """
    device = model.device
    num_frames = len(sequence.decision_positions)
    embeds = model.embed(
        sequence.input_ids[None].to(device),
        sequence.image_mask[None].to(device),
        features[:num_frames].flatten(0, 1).to(device),
    )
    hidden = model.hidden_states(embeds)[0, sequence.decision_positions.to(device)]
    dst_probs = None
    if model.dst_head is not None:
        dst_probs = model.dst_head(hidden).float().sigmoid().cpu()
    return TeacherForced(
        speak_probs=model.speak_head(hidden).float().sigmoid().cpu(),
        dst_probs=dst_probs,
        speak_labels=sequence.speak_labels,
        dst_labels=sequence.dst_update_labels,
    )
