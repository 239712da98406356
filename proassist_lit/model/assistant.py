"""The model: a causal language model that sees, with two decision heads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from proassist_lit.errors import FeatureError
from proassist_lit.model.config import ModelConfig, TrainMode
from proassist_lit.model.heads import DecisionHead
from proassist_lit.model.projector import Projector
from proassist_lit.types import Batch, ModelOutput


class AssistantModel(nn.Module):
    """Backbone, projector and heads.

    Args:
        backbone: Hugging Face causal language model.
        vision_size: E, size of a feature vector.
        config: heads, and what is trained.
    """

    def __init__(self, backbone: Any, *, vision_size: int, config: ModelConfig) -> None:
        super().__init__()
        self.lm = backbone
        hidden_size = int(backbone.config.hidden_size)
        self.hidden_size = hidden_size
        self.projector = Projector(vision_size, hidden_size)
        self.speak_head = DecisionHead(hidden_size, config.head)
        self.dst_head = DecisionHead(hidden_size, config.head) if config.dst else None
        output = backbone.get_output_embeddings()
        self.dst_output_head: nn.Linear | None = None
        if config.dst and config.dst_output_head:
            self.dst_output_head = nn.Linear(hidden_size, output.out_features, bias=False)
            self.dst_output_head.weight.data.copy_(output.weight.data)
        if config.train is TrainMode.FROZEN:
            self.lm.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device

    def embed_tokens(self, input_ids: Tensor) -> Tensor:
        """(..., T) int64 token ids to (..., T, D) embeddings.

        Ids beyond the vocabulary (an image token that was added without resizing) are clamped:
        their embeddings are replaced by features.
        """
        table = self.lm.get_input_embeddings()
        out: Tensor = table(input_ids.clamp(max=table.num_embeddings - 1))
        return out

    def project(self, features: Tensor) -> Tensor:
        """(..., E) features to (..., D) embeddings.

        Raises:
            FeatureError: the features have another width than the projector.
        """
        if features.shape[-1] != self.projector.vision_size:
            raise FeatureError(
                f"features are {features.shape[-1]} wide, but the model's projector reads "
                f"{self.projector.vision_size}; use the encoder that the model was trained with."
            )
        dtype = next(self.projector.parameters()).dtype
        out: Tensor = self.projector(features.to(dtype))
        return out

    def embed(self, input_ids: Tensor, image_mask: Tensor, image_features: Tensor) -> Tensor:
        """Token embeddings with projected features at the image tokens.

        Args:
            input_ids: (B, T) int64.
            image_mask: (B, T) bool.
            image_features: (num image tokens, E), row-major over ``image_mask``.

        Returns:
            (B, T, D).
        """
        embeds = self.embed_tokens(input_ids)
        projected = self.project(image_features).to(embeds.dtype)
        return embeds.masked_scatter(image_mask.unsqueeze(-1), projected)

    def hidden_states(
        self, inputs_embeds: Tensor, *, attention_mask: Tensor | None = None, cache: Any = None
    ) -> Tensor:
        """Last hidden states after the final norm.

        Args:
            inputs_embeds: (B, T, D).
            attention_mask: (B, T) 1 real, 0 padding; None where there is none.
            cache: keys and values of what came before; extended in place.

        Returns:
            (B, T, D).
        """
        out: Tensor = self.lm.get_decoder()(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state
        return out

    def lm_logits(self, hidden: Tensor, *, dst: bool = False) -> Tensor:
        """(..., D) hidden states to (..., V) vocabulary logits; of the dst output head if any."""
        head = self.dst_output_head if dst and self.dst_output_head is not None else None
        out: Tensor = (head or self.lm.get_output_embeddings())(hidden)
        return out

    def forward(self, batch: Batch) -> ModelOutput:
        """Run a training batch. The vocabulary matrix is applied later, at labelled positions."""
        embeds = self.embed(batch.input_ids, batch.image_mask, batch.image_features)
        # Padding stands on the right, where causal attention never looks: no mask is needed.
        hidden = self.hidden_states(embeds)
        return ModelOutput(
            hidden=hidden,
            speak_logits=self.speak_head(hidden),
            dst_logits=self.dst_head(hidden) if self.dst_head is not None else None,
        )
