"""The model: a causal language model that sees, with two decision heads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from proassist_lit.errors import ConfigError, FeatureError
from proassist_lit.model.cache_argument import with_cache
from proassist_lit.model.config import Decision, ModelConfig, TrainMode
from proassist_lit.model.frame_embeddings import extract_frame_embeddings
from proassist_lit.model.greedy import (
    fast_greedy_generate,
    fast_greedy_generate_with_dst,
    turn_logits,
)
from proassist_lit.model.heads import DecisionHead, InformativeRelevance, TokenDecision
from proassist_lit.model.logits import finish_logits
from proassist_lit.model.new_rows import freeze
from proassist_lit.model.projector import Projector
from proassist_lit.model.segments import Segments, attend_by_segment, can_pack
from proassist_lit.model.suitability import context_limit
from proassist_lit.sequence.chat import Chat, Role
from proassist_lit.types import Batch, ModelOutput


class AssistantModel(nn.Module):
    """Backbone, projector and heads.

    Args:
        backbone: Hugging Face causal language model.
        vision_size: E, size of a feature vector.
        config: heads, and what is trained.
        chat: the formatter; None for a model that neither decides by tokens nor generates.

    Raises:
        ConfigError: the decisions cannot be read from tokens of this chat format.

    Attributes:
        saves_backbone: whether checkpoints hold the whole backbone; else what is trained of it,
            because the rest can be read again from where it came.
    """

    def __init__(
        self, backbone: Any, *, vision_size: int, config: ModelConfig, chat: Chat | None = None
    ) -> None:
        super().__init__()
        self.lm = backbone
        self.chat = chat
        self.context_limit = context_limit(backbone)
        self._by_segment = attend_by_segment(backbone)
        self.can_pack = can_pack(backbone)
        hidden_size = int(backbone.config.hidden_size)
        self.hidden_size = hidden_size
        self.projector = Projector(vision_size, hidden_size)
        self.decision = config.decision
        self.speak_head = self._build_decision(Role.ASSISTANT, config, chat)
        self.dst_head = self._build_decision(Role.DST, config, chat) if config.dst else None
        output = backbone.get_output_embeddings()
        self.dst_output_head: nn.Linear | None = None  # float32 as the heads, whatever the backbone
        if config.dst and config.dst_output_head:
            has_bias = output.bias is not None
            self.dst_output_head = nn.Linear(hidden_size, output.out_features, bias=has_bias)
            self.dst_output_head.weight.data.copy_(output.weight.detach())
            if has_bias:
                self.dst_output_head.bias.data.copy_(output.bias.detach())
        self.saves_backbone = config.train is TrainMode.FULL or config.is_from_scratch
        if config.train is TrainMode.FROZEN:
            freeze(self.lm)

    def _build_decision(self, role: Role, config: ModelConfig, chat: Chat | None) -> nn.Module:
        is_dst = role is Role.DST
        if config.decision is Decision.HEAD or (
            config.decision is not Decision.OPENING_TOKEN and is_dst
        ):
            return DecisionHead(self.hidden_size, config.head)
        if config.decision is Decision.INFORMATIVE_RELEVANCE:
            return InformativeRelevance(self.hidden_size, config.head)
        if chat is None:
            raise ConfigError(
                f"model.decision={config.decision.value} reads tokens of the chat format; give "
                "the model its chat."
            )
        if config.decision is Decision.SILENT_TOKEN:
            return TokenDecision(self.lm_logits, chat.silent_id, means_yes=False)
        opening = chat.opening_ids(role)
        if len(opening) != 1 or chat.opening_ids(Role.ASSISTANT) == chat.opening_ids(Role.DST):
            raise ConfigError(
                f"model.decision=opening_token needs a chat format with one token of its own for "
                f"every opening, but {chat.format.name!r} opens the {role.value} span with "
                f"{len(opening)}; choose model.chat=dst_ext or compact, or model.decision=head."
            )
        read = partial(self.lm_logits, dst=is_dst)
        return TokenDecision(read, opening[0], means_yes=True)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the backbone's numbers."""
        table = self.lm.get_input_embeddings()
        dtype: torch.dtype = getattr(table, "base", table).weight.dtype  # new rows have their own
        return dtype

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

    def embed_ids(self, ids: Sequence[int]) -> Tensor:
        """(T, D) embeddings of token ids, of which there may be none."""
        return self.embed_tokens(torch.tensor(ids, dtype=torch.int64, device=self.device))

    def check_width(self, features: Tensor, *, where: str = "") -> None:
        """Refuse features that the projector cannot read.

        Args:
            features: (..., E).
            where: record or frame that they are of, for the message.

        Raises:
            FeatureError: they have another width than the projector.
        """
        if features.shape[-1] != self.projector.vision_size:
            raise FeatureError(
                f"{where}{': ' if where else ''}features are {features.shape[-1]} wide, but the "
                f"model's projector reads {self.projector.vision_size}; use the encoder that the "
                "model was trained with."
            )

    def project(self, features: Tensor) -> Tensor:
        """(..., E) features to (..., D) embeddings.

        Raises:
            FeatureError: the features have another width than the projector.
        """
        self.check_width(features)
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
        self,
        inputs_embeds: Tensor,
        *,
        attention_mask: Tensor | None = None,
        cache: Any = None,
        segments: Segments | None = None,
    ) -> Tensor:
        """Last hidden states after the final norm.

        Args:
            inputs_embeds: (B, T, D).
            attention_mask: (B, T) 1 real, 0 padding; None where there is none.
            cache: keys and values of what came before; extended in place.
            segments: the conversations of a packed row; None for one conversation a row.

        Returns:
            (B, T, D).

        Raises:
            ConfigError: the backbone cannot read so many tokens.
        """
        length = inputs_embeds.shape[1] + (cache.get_seq_length() if cache is not None else 0)
        length = max(segments.lengths) if segments is not None else length
        if self.context_limit is not None and length > self.context_limit[0]:
            most, reason = self.context_limit
            raise ConfigError(
                f"model.backbone ({self.lm.config.model_type}) has {reason} {most} tokens, got "
                f"{length}; lower stream.max_context and data.max_seq_len to {most}, or choose a "
                "backbone with rotary positions."
            )
        decoder = self.lm.get_decoder()
        packed: dict[str, Any] = {}
        if segments is not None:
            packed["position_ids"] = segments.position_ids
            if self._by_segment:
                packed["segments"] = segments
                # A mask of four dimensions is handed on as it is: none of (T, T) is made.
                attention_mask = inputs_embeds.new_ones(1, 1, 1, 1, dtype=torch.bool)
        out: Tensor = decoder(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            use_cache=cache is not None,
            **packed,
            **with_cache(decoder, cache),
        ).last_hidden_state
        return out

    def lm_logits(self, hidden: Tensor, *, dst: bool = False) -> Tensor:
        """(..., D) hidden states to (..., V) vocabulary logits; of the dst output head if any."""
        if dst and self.dst_output_head is not None:
            out: Tensor = self.dst_output_head(hidden.to(self.dst_output_head.weight.dtype))
        else:
            out = self.lm.get_output_embeddings()(hidden)
        return finish_logits(out, self.lm.config)

    extract_frame_embeddings = staticmethod(extract_frame_embeddings)
    turn_logits = turn_logits
    fast_greedy_generate = fast_greedy_generate
    fast_greedy_generate_with_dst = fast_greedy_generate_with_dst

    def forward(self, batch: Batch) -> ModelOutput:
        """Run a training batch. The vocabulary matrix is applied later, at labelled positions."""
        embeds = self.embed(batch.input_ids, batch.image_mask, batch.image_features)
        # Padding stands on the right, where causal attention never looks: no mask is needed.
        mask = batch.attention_mask if batch.hides_tokens else None
        segments = None
        if batch.segment_ids is not None:
            segments = Segments.of(batch.lengths, batch.segment_ids)
        hidden = self.hidden_states(embeds, attention_mask=mask, segments=segments)
        dst_logits = None
        if self.dst_head is not None:
            dst_logits = _read(
                self.dst_head, hidden, batch.dst_pos_frame_mask | batch.dst_neg_frame_mask
            )
        relevance_logits = None
        if isinstance(self.speak_head, InformativeRelevance):
            speak_logits, relevance_logits = self.speak_head.scores(hidden)
        else:
            decided = batch.pos_frame_mask | batch.neg_frame_mask
            speak_logits = _read(self.speak_head, hidden, decided)
        return ModelOutput(
            hidden=hidden,
            speak_logits=speak_logits,
            dst_logits=dst_logits,
            relevance_logits=relevance_logits,
        )


def _read(decision: nn.Module, hidden: Tensor, mask: Tensor) -> Tensor:
    """(B, T) raw scores; of a token only where ``mask`` is true, for the sake of the vocabulary."""
    if not isinstance(decision, TokenDecision):
        out: Tensor = decision(hidden)
        return out
    scores: Tensor = decision(hidden[mask])
    return scores.new_zeros(mask.shape).masked_scatter(mask, scores)
