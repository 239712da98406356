"""Frame-by-frame generation with the signatures of ProAssist and its DST extension.

For code that walks through a stream by itself. ``streaming.session`` does more: it keeps the
state, the limits and the context; these functions keep nothing but the cache they are given.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from proassist_lit.errors import ConfigError
from proassist_lit.model.frame_embeddings import extract_frame_embeddings
from proassist_lit.sequence.chat import Chat, Role

if TYPE_CHECKING:
    from proassist_lit.model.assistant import AssistantModel

_log = logging.getLogger(__name__)


@torch.inference_mode()
def fast_greedy_generate(
    model: AssistantModel,
    inputs_embeds: Tensor,
    past_key_values: Any,
    max_length: int = 100,
    drop_generated_kv_cache: bool = False,
    not_talk_threshold: float = 0.5,
    verbose: bool = False,
) -> tuple[Tensor, Any]:
    """Feed a frame, decide whether to speak, and if so write an utterance.

    Args:
        model: built with its chat.
        inputs_embeds: (1, T, D): text that arrived and the frame's image tokens, embedded; the
            decision is read at the last of them.
        past_key_values: cache of what came before, extended in place; None for a new one.
        max_length: longest utterance, tokens.
        drop_generated_kv_cache: forget the utterance again once it is written.
        not_talk_threshold: silent iff P(not talk) > this: the reference's polarity, here only.
        verbose: log the probability and the utterance.

    Returns:
        (1, N) int64 and the cache. Silence is the one silent token of the chat format, which is
        not in the cache; an utterance is its opening, its words and the end of turn (left out
        where ``max_length`` cut it), and enters the cache with its whole closing.

    Raises:
        ConfigError: the model was built without its chat.
        ValueError: ``inputs_embeds`` is not (1, T, D) with T >= 1.

    Source: ProAssist, arXiv:2506.05904. There the opening is generated, the last token does not
    enter the cache, and a cut utterance stays open.
    """
    chat = _chat(model)
    hidden, cache = _feed(model, inputs_embeds, past_key_values)
    not_talk = float(torch.sigmoid(-model.speak_head(hidden)).squeeze())
    if not_talk > not_talk_threshold:
        ids = [chat.silent_id]
    else:
        ids, num_fed = _write(model, chat, cache, Role.ASSISTANT, max_length)
        if drop_generated_kv_cache:
            _drop_last(cache, num_fed)
    if verbose:
        _log.info("P(not talk) %.3f: %s", not_talk, chat.decode(ids) or "(silent)")
    return torch.tensor([ids], device=inputs_embeds.device), cache


@torch.inference_mode()
def fast_greedy_generate_with_dst(
    model: AssistantModel,
    inputs_embeds: Tensor,
    past_key_values: Any = None,
    max_length: int = 100,
    include_dst: bool = True,
) -> tuple[Tensor, Any, dict[str, Tensor]]:
    """Feed a frame, make both decisions at 1/2, and write the dst span, then the utterance.

    Args:
        model: built with its chat.
        inputs_embeds: (1, T, D), as for ``fast_greedy_generate``.
        past_key_values: cache of what came before, extended in place; None for a new one.
        max_length: longest span, tokens.
        include_dst: whether the state may be updated.

    Returns:
        (1, N) int64: dst span, then utterance, each from its opening to its end of turn, the
        silent token alone if there is neither; the cache; and ``speaking_logits`` and
        ``dst_update_logits``, each (1, 1, 1), whose sigmoid is P(speak) and P(update). Without a
        dst head there is no ``dst_update_logits``.

    Raises:
        ConfigError: the model was built without its chat.
        ValueError: ``inputs_embeds`` is not (1, T, D) with T >= 1.
    """
    chat = _chat(model)
    hidden, cache = _feed(model, inputs_embeds, past_key_values)
    logits = turn_logits(model, hidden)
    spans = [("dst_update_logits", Role.DST)] if include_dst else []
    ids: list[int] = []
    for name, role in (*spans, ("speaking_logits", Role.ASSISTANT)):
        if name in logits and float(logits[name].squeeze()) >= 0:
            ids += _write(model, chat, cache, role, max_length)[0]
    out = torch.tensor([ids or [chat.silent_id]], device=inputs_embeds.device)
    return out, cache, logits


def turn_logits(
    model: AssistantModel, last_hidden_state: Tensor, padding_mask: Tensor | None = None
) -> dict[str, Tensor]:
    """Both decisions of a batch of turns, read at the last valid token of each.

    Args:
        model: gives the heads.
        last_hidden_state: (B, T, D).
        padding_mask: (B, T) 1 real and 0 padding, on either side; None without padding.

    Returns:
        ``speaking_logits`` and, with a dst head, ``dst_update_logits``, each (B, 1, 1).
    """
    turns = extract_frame_embeddings(last_hidden_state, padding_mask)  # (B, 1, D)
    logits: dict[str, Tensor] = {"speaking_logits": model.speak_head(turns).unsqueeze(-1)}
    if model.dst_head is not None:
        logits["dst_update_logits"] = model.dst_head(turns).unsqueeze(-1)
    return logits


def _chat(model: AssistantModel) -> Chat:
    if model.chat is None:
        raise ConfigError(
            "the model cannot generate: it was built without its chat; give AssistantModel the "
            "chat that it was trained with."
        )
    return model.chat


def _feed(model: AssistantModel, inputs_embeds: Tensor, cache: Any) -> tuple[Tensor, Any]:
    """(1, 1, D) hidden state of the last token, and the cache."""
    if inputs_embeds.ndim != 3 or inputs_embeds.shape[0] != 1 or not inputs_embeds.shape[1]:
        raise ValueError(
            f"inputs_embeds is {tuple(inputs_embeds.shape)}, expected (1, T, D) with at least one "
            "token; walk through streams one by one."
        )
    cache = DynamicCache() if cache is None else cache
    return model.hidden_states(inputs_embeds, cache=cache)[:, -1:], cache


def _write(
    model: AssistantModel, chat: Chat, cache: Any, role: Role, max_length: int
) -> tuple[list[int], int]:
    """Write one span greedily; return its tokens, and how many entered the cache."""
    ids = list(chat.opening_ids(role))
    feed, num_fed, num_words = list(ids), 0, 0
    while True:
        hidden = _feed(model, model.embed_ids(feed)[None], cache)[0]
        num_fed += len(feed)
        token = int(model.lm_logits(hidden[0, -1], dst=role is Role.DST).argmax())
        if token == chat.end_of_turn_id or num_words == max_length:
            break
        ids.append(token)
        feed, num_words = [token], num_words + 1
    if token == chat.end_of_turn_id:
        ids.append(token)
    closing = [chat.end_of_turn_id, *chat.after_turn_ids]
    _feed(model, model.embed_ids(closing)[None], cache)
    return ids, num_fed + len(closing)


def _drop_last(cache: Any, count: int) -> None:
    """Forget the last ``count`` tokens."""
    if isinstance(cache, DynamicCache):  # takes how many to remove, as a negative number
        cache.crop(-count)
    else:
        cache.crop(cache.get_seq_length() - count)
