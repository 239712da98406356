"""Teacher-forced pass over the reference's turns: its words, and when it would have spoken.

A turn is a stretch of frames and the words after its last frame, as VideoLLM-online evaluates
them. Nothing the model says enters the context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from proassist_lit.model.assistant import AssistantModel
from proassist_lit.sequence.builder import build_sequence, text_ids
from proassist_lit.sequence.chat import Chat, Role
from proassist_lit.sequence.script import Moment, Script
from proassist_lit.streaming.cache import KVCache
from proassist_lit.streaming.decoder import Decoder, make_decoder
from proassist_lit.streaming.policy import DecisionPolicy
from proassist_lit.types import IGNORE_INDEX

ROWS = 512
"""Words whose vocabulary logits are held at a time."""


@dataclass(frozen=True)
class ForcedTurn:
    """What the model would have made of a turn of the reference.

    Attributes:
        num_frames: S, frames from the utterance before up to this one.
        num_words: W, supervised tokens of the utterance, end of turn included.
        num_right_words: how many of them, from the first on, are the most probable ones until one
            is not.
        cross_entropy: of the words, mean, nats.
        late_frames: when the model would have begun to speak, in frames after the reference:
            negative for too early, 0 for on time.
        texts: what the model writes when it is made to speak there, and the reference's words;
            None where it is not asked to write.
    """

    num_frames: int
    num_words: int
    num_right_words: int
    cross_entropy: float
    late_frames: int
    texts: tuple[str, str] | None = None


@torch.inference_mode()
def forced_turns(
    model: AssistantModel,
    chat: Chat,
    script: Script,
    features: Tensor,
    *,
    theta_speak: float,
    max_seq_len: int,
    max_new_tokens: int = 0,
    decoder: Decoder | None = None,
    policy: DecisionPolicy | None = None,
    rise: float | None = None,
) -> list[ForcedTurn]:
    """Go through the turns of a conversation that fits into one sequence.

    Where the model speaks at none of a turn's frames, it goes on silently into the frames of the
    next turn, at most as many as this one has but one; how many frames it went on is how late it
    is, whether it spoke at the last or not.

    Args:
        model: in evaluation mode.
        chat: the formatter.
        script: the conversation.
        features: (at least F, K, E).
        theta_speak: speak iff what ``policy`` makes of P(speak) is >= this.
        max_seq_len: most tokens; of a longer conversation the turns that fit are gone through.
        max_new_tokens: longest utterance that the model writes at every turn; 0 for none.
        decoder: how the tokens it writes are fed; None for the fastest way.
        policy: of a stream that begins; what the reference says is its yes. None for P(speak)
            itself, at every frame.
        rise: see ``StreamConfig.rise``.

    Returns:
        A turn for every frame that an utterance of the reference follows, in order. Summaries are
        no utterances.

    Source: VideoLLM-online, arXiv:2406.11816.
    """
    device, num_tokens_per_img = model.device, features.shape[1]
    sequence = build_sequence(
        script, chat, num_tokens_per_img=num_tokens_per_img, max_seq_len=max_seq_len
    )
    decisions = sequence.decision_positions.tolist()
    embeds = model.embed(
        sequence.input_ids[None].to(device),
        sequence.image_mask[None].to(device),
        features[: len(decisions)].flatten(0, 1).to(device),
    )
    cache = KVCache(model.lm.config.num_hidden_layers)
    hidden = model.hidden_states(embeds, cache=cache)[0]  # (T, D)
    heard = script.moments[: len(decisions)]
    says = partial(DecisionPolicy.says, theta=theta_speak, rise=rise)
    begun = policy or DecisionPolicy()
    speaks, waits = _decide(_probs(model, hidden[decisions]), heard, begun, says)
    losses, right = _score_words(model, hidden, sequence.labels.to(device))
    is_word = sequence.labels != IGNORE_INDEX

    lasts = [i for i, m in enumerate(heard) if _has_utterance(m)]
    turns = []
    # From the last to the first, so that the cache is only ever cut shorter.
    for number in reversed(range(len(lasts))):
        last = lasts[number]
        first = lasts[number - 1] + 1 if number else 0
        # Not to the next frame: what stands before that is another turn.
        end = decisions[last] + 1 + len(text_ids(chat, heard[last].spans))
        words = torch.arange(decisions[last] + 1, end)[is_word[decisions[last] + 1 : end]]
        texts = None
        if max_new_tokens:
            decoder = decoder or make_decoder(model)  # it may pack a copy of all weights
            opening = len(chat.opening_ids(Role.ASSISTANT)) if chat.format.train_openings else 0
            start = int(words[0]) + opening
            cache.crop(start)
            written = _write(model, chat, hidden[start - 1], cache, max_new_tokens, decoder)
            texts = written, script.moments[last].utterance
        if True in speaks[first : last + 1]:
            late = speaks.index(True, first) - last
        else:
            end_of_next = lasts[number + 1] if number + 1 < len(lasts) else len(decisions) - 1
            ahead = min(last - first, end_of_next - last)
            cache.crop(decisions[last] + 1)
            late = _go_on(
                model, chat, script.moments[last : last + 1 + ahead],
                features[last + 1 : last + 1 + ahead], cache, waits[last], says,
            )  # fmt: skip
        turns.append(
            ForcedTurn(
                num_frames=last + 1 - first,
                num_words=len(words),
                num_right_words=int(right[words].long().cumprod(0).sum()),
                cross_entropy=float(losses[words].mean()),
                late_frames=late,
                texts=texts,
            )
        )
    return turns[::-1]


def _go_on(
    model: AssistantModel,
    chat: Chat,
    moments: Sequence[Moment],
    features: Tensor,
    cache: KVCache,
    policy: DecisionPolicy,
    says: Callable[[DecisionPolicy, float], bool],
) -> int:
    """Frames that go by, nothing being said, until the model speaks; all if it never does.

    ``moments`` are the frame that the cache ends with and those to go on with; ``features`` are
    (frames to go on with, K, E); ``policy`` remembers the frames before.
    """
    if not len(features):
        return 0
    silent = [_silent(moment) for moment in moments]
    told = Script(prompt="", steps=(), initial_state={}, moments=silent)
    sequence = build_sequence(told, chat, num_tokens_per_img=features.shape[1], max_seq_len=2**62)
    start = int(sequence.decision_positions[0]) + 1
    embeds = model.embed(
        sequence.input_ids[None, start:].to(model.device),
        sequence.image_mask[None, start:].to(model.device),
        features.flatten(0, 1).to(model.device),
    )
    hidden = model.hidden_states(embeds, cache=cache)[0]
    probs = _probs(model, hidden[sequence.decision_positions[1:] - start])
    for number, (prob, moment) in enumerate(zip(probs, silent[1:], strict=True), start=1):
        if says(policy, prob):
            return number
        _note(policy, prob, moment)
    return len(features)


def _decide(
    probs: Sequence[float],
    moments: Sequence[Moment],
    policy: DecisionPolicy,
    says: Callable[[DecisionPolicy, float], bool],
) -> tuple[list[bool], list[DecisionPolicy]]:
    """Whether each frame fires, and what is remembered after it where nothing was said at it."""
    policy, fires, after = copy(policy), [], []
    for prob, moment in zip(probs, moments, strict=True):
        fires.append(says(policy, prob))
        after.append(copy(policy))
        _note(after[-1], prob, _silent(moment))
        _note(policy, prob, moment)
    return fires, after


def _note(policy: DecisionPolicy, prob: float, moment: Moment) -> None:
    policy.note(prob, yes=_has_utterance(moment))
    if moment.spans:
        policy.note_span()


def _silent(moment: Moment) -> Moment:
    spans = tuple(span for span in moment.spans if span.role is Role.DST)
    return replace(moment, spans=spans)


def _write(
    model: AssistantModel,
    chat: Chat,
    hidden: Tensor,
    cache: KVCache,
    max_new_tokens: int,
    decoder: Decoder,
) -> str:
    """Words after an opening, whose last hidden state is (D,) and whose keys end the cache."""
    ids: list[int] = []
    while len(ids) < max_new_tokens:
        token = int(model.lm_logits(hidden).argmax())
        if token == chat.end_of_turn_id:
            break
        ids.append(token)
        hidden = decoder(model.embed_ids([token]), cache)
    return chat.decode(ids)


def _has_utterance(moment: Moment) -> bool:
    return bool(moment.utterance) and not moment.has_summary


def _probs(model: AssistantModel, hidden: Tensor) -> list[float]:
    """P(speak) at (F, D) hidden states."""
    probs: list[float] = model.speak_head(hidden).float().sigmoid().tolist()
    return probs


def _score_words(model: AssistantModel, hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(T,) cross-entropy and whether the label is the most probable token; 0 without a label."""
    losses = torch.zeros(len(labels))
    right = torch.zeros(len(labels), dtype=torch.bool)
    words = (labels != IGNORE_INDEX).nonzero().squeeze(1)
    for start in range(0, len(words), ROWS):
        places = words[start : start + ROWS]
        logits = model.lm_logits(hidden[places - 1]).float()
        losses[places.cpu()] = F.cross_entropy(logits, labels[places], reduction="none").cpu()
        right[places.cpu()] = (logits.argmax(-1) == labels[places]).cpu()
    return losses, right
