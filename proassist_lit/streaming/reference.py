"""The reference's stepping: ProAssist's released code, reproduced with its faults.

It is here to be compared with published numbers; ``session`` is ours, and differs from it on
purpose. Nothing else in the package knows of these rules.

Source: ProAssist, arXiv:2506.05904, as released. One difference: what it remembers of a stream is
in the session, where the released code keeps it on the model and hands it on to the next video.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from proassist_lit.errors import ContextError
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.sequence.chat import Chat, Role
from proassist_lit.sequence.script import KNOWLEDGE, Script, Text
from proassist_lit.sequence.summary_requests import SUMMARY_QUERY
from proassist_lit.sequence.system_turn import system_text
from proassist_lit.streaming.arrivals import Said, user_words
from proassist_lit.streaming.cache import KVCache
from proassist_lit.streaming.decoder import Decoder, make_decoder
from proassist_lit.streaming.inputs import as_texts, check_features, read_features
from proassist_lit.streaming.reference_context import (
    ReferenceCall,
    ReferenceConfig,
    ReferenceText,
    ReferenceTrace,
    drop_middle,
)
from proassist_lit.types import DialogueState, FrameOutput

SUMMARY_THRESHOLD = 0.5
"""The request for a summary passes the decision to talk, whatever the threshold of the frames."""


def reference_turn(spans: Iterable[Text]) -> str | None:
    """What the reference knows of the ``spans`` after a frame: the first assistant turn, if any.

    A second one, and one that does not directly follow a frame, vanish there; so the script must
    be read with ``rules.PROASSIST``, which does not join them.
    """
    return next((span.content for span in spans if span.role is Role.ASSISTANT), None)


class ReferenceSession:
    """An assistant that watches one stream as the reference does.

    Args:
        model: in evaluation mode; its dst head, if any, is not asked.
        chat: the formatter that the model was trained with.
        script: prompt, steps and initial state of the stream; its moments are not looked at.
        config: threshold, limits and strategy.
        fps: frames per second.
        num_tokens_per_img: K.
        start_frame_idx: index of the first frame in the video.
        name: name of the stream, for messages.
        decoder: how tokens are fed; None for the fastest way that fits the backbone.
        encode: makes (K, E) features of an (H, W, 3) uint8 picture, for live use.

    Attributes:
        last: what happened inside the last step; None before the first.
        state: state of the steps, which nothing changes.
    """

    def __init__(
        self,
        model: AssistantModel,
        chat: Chat,
        script: Script,
        config: ReferenceConfig,
        *,
        fps: float,
        num_tokens_per_img: int,
        start_frame_idx: int = 0,
        name: str = "stream",
        decoder: Decoder | None = None,
        encode: Callable[[Any], Tensor] | None = None,
    ) -> None:
        self._model, self._chat, self._config = model, chat, config
        self._fps, self._num_tokens_per_img = fps, num_tokens_per_img
        self._frame_idx, self._name = start_frame_idx, name
        self._decoder, self._encode = decoder or make_decoder(model), encode
        self._cache = KVCache(model.lm.config.num_hidden_layers)
        self._pending: list[int] = []  # fed first at the next frame
        self._opening = system_text(
            script, script.initial_state, overview_first=chat.format.overview_first
        )
        self._prompt = self._knowledge = ""  # told again after a summary
        self._init_cache: int | None = None
        self._last_not_talk_prob = config.init_last_not_talk_prob
        self._text = ReferenceText(chat)
        self.last: ReferenceTrace | None = None
        self.state: DialogueState = dict(script.initial_state)

    @property
    def context_len(self) -> int:
        """Tokens of the context, those that wait for the next frame included."""
        return len(self._cache) + len(self._pending)

    @torch.inference_mode()
    def step(
        self,
        frame: Any,
        user_text: str | Sequence[Text] | None = None,
        *,
        said: Said | None = None,
    ) -> FrameOutput:
        """Watch one frame and answer.

        Args:
            frame: (K, E) features of the frame, or, with an encoder, its (H, W, 3) uint8 picture.
            user_text: what arrived since the frame before: a user's words, or turns of text, of
                which only those of users and system are heard; None where nothing did.
            said: what the reference says at this frame; fed before the next one with
                ``use_gt_context``, otherwise not looked at.

        Returns:
            Probability, decision and words at this frame. ``last`` has the rest.

        Raises:
            StreamError: the features are not finite or of the wrong number, or the cache is full
                and the strategy is ``none``. The session stays as it was.
            FeatureError: the features have another width than the model's projector.
        """
        features = read_features(frame, self._encode)
        where = f"stream {self._name!r}, frame {self._frame_idx}"
        check_features(features, self._num_tokens_per_img, where)
        self._check_room(where)
        self._model.check_width(features, where=where)
        image = self._model.project(features.to(self._model.device))
        texts = [t for t in as_texts(user_text) if t.role in (Role.SYSTEM, Role.USER)]

        ids = self._pending + self._read(texts)
        call = self._generate(ids, image, self._config.max_length)
        # The start that drop_middle keeps is all there is after the first frame with words of a
        # user: what was answered there, too, if it was not dropped.
        if self._init_cache is None and any(text.role is Role.USER for text in texts):
            self._init_cache = call.cache_out
        self._pending = self._carry(call, said or Said())
        context_len = self.context_len
        self.last = self._manage_context(call, image)
        output = FrameOutput(
            frame_idx=self._frame_idx,
            time_s=self._frame_idx / self._fps,
            speak_prob=1.0 - call.not_talk_prob,
            dst_prob=None,
            speak=call.output_ids[0] != self._chat.silent_id,
            dst=False,
            text=self._text.clean(call.output_ids),
            state=self.state,  # never changed in place
            user_text=user_words(texts),
            context_len=context_len,
            event=self.last.event,
        )
        self._frame_idx += 1
        return output

    def _check_room(self, where: str) -> None:
        config = self._config
        if config.strategy == "none" and len(self._cache) >= config.limit:
            raise ContextError(
                f"{where}: the context is full ({len(self._cache)} of {config.eval_max_seq_len} "
                f"tokens, {config.reserved_seq_len} kept in reserve); raise stream.max_context or "
                "choose a stream.strategy."
            )

    def _read(self, texts: Sequence[Text]) -> list[int]:
        """Token ids of what precedes the image: the messages; at the first frame all that opens.

        BOS stands only before messages: a stream that begins with bare frames never has one.
        """
        messages, bos = list(texts), ""
        if self.last is None:
            if self._opening:
                messages.insert(0, Text(role=Role.SYSTEM, content=self._opening))
            if messages and messages[0].role is Role.SYSTEM:
                self._prompt = messages[0].content
            bos = self._chat.format.bos if messages else ""
        told = [m.content for m in messages if m.role is Role.SYSTEM and KNOWLEDGE in m.content]
        self._knowledge = self._knowledge or (told[-1] if told else "")
        return self._text.tokenize(
            bos + "".join(self._text.turn(m.role, m.content) for m in messages)
        )

    def _generate(
        self, ids: list[int], image: Tensor, max_length: int, *, is_summary: bool = False
    ) -> ReferenceCall:
        """Feed ``ids`` and the frame, decide, and write until the end of turn or ``max_length``.

        The header of the turn is generated like any other word, from the logits of the decision,
        and counts. The last token is generated, never fed.
        """
        cache_in = len(self._cache)
        hidden = self._feed(ids, image)
        not_talk_prob = float(torch.sigmoid(-self._model.speak_head(hidden).float()))
        cache_fed = len(self._cache)
        token = self._first_token(hidden, not_talk_prob, is_summary=is_summary)
        written = [token]
        silent = token == self._chat.silent_id
        while not silent and token != self._chat.end_of_turn_id and len(written) < max_length:
            token = int(self._model.lm_logits(self._feed([token])).argmax())
            written.append(token)
        if self._config.use_gt_context and not is_summary:
            self._cache.crop(cache_fed)  # written all the same, and dropped
        return ReferenceCall(
            input_ids=(*ids, *[self._chat.image_id] * len(image)),
            not_talk_prob=not_talk_prob,
            output_ids=tuple(written),
            cache_in=cache_in,
            cache_out=len(self._cache),
        )

    def _first_token(self, hidden: Tensor, not_talk_prob: float, *, is_summary: bool) -> int:
        """The silent token, or the most probable other one; at 0 whichever is most probable."""
        previous, fall = self._last_not_talk_prob, self._config.fall
        self._last_not_talk_prob = not_talk_prob  # a summary's, too; nothing clears it
        if is_summary:
            threshold = SUMMARY_THRESHOLD
        elif fall is None:
            threshold = float(self._config.not_talk_threshold)
        else:
            talks = previous is not None and previous - not_talk_prob > fall
            threshold = 1.0 if talks else 0.5
        if 0 < threshold < not_talk_prob:
            return self._chat.silent_id
        logits = self._model.lm_logits(hidden)
        if threshold > 0:
            logits[self._chat.silent_id] = -torch.inf  # here only; later it may come
        return int(logits.argmax())

    def _feed(self, ids: list[int], image: Tensor | None = None) -> Tensor:
        """Last hidden state, (D,). Image ids are never looked up: they may be no tokens at all."""
        embeds = self._model.embed_ids(ids)
        if image is not None:
            embeds = torch.cat([embeds, image.to(embeds.dtype)])
        return self._decoder(embeds, self._cache)

    def _carry(self, call: ReferenceCall, said: Said) -> list[int]:
        """What is fed first at the next frame, before anything that is said until then."""
        separator = self._chat.separator_ids
        if not self._config.use_gt_context:
            # The last token that was generated: a separator, an end of turn, or where it was cut.
            # Without a separator it is lost, and the turn stays open.
            return [call.output_ids[-1]] if separator else []
        turn = reference_turn(said.spans)
        if turn is None:
            return list(separator)
        return self._text.tokenize(self._text.turn(Role.ASSISTANT, turn))

    def _manage_context(self, call: ReferenceCall, image: Tensor) -> ReferenceTrace:
        """Run the strategy if the cache is full; what waits to be fed is not counted."""
        event, summary, summary_text, next_text = None, None, "", ""
        strategy = self._config.strategy
        if len(self._cache) >= self._config.limit and strategy != "none":
            if strategy == "drop_middle" and self._init_cache is not None:
                dropped = drop_middle(
                    self._cache, start=self._init_cache, tail=self._config.last_keep_len
                )
                event = "drop_middle" if dropped else None
            elif strategy == "summarize":
                event = strategy
                summary, summary_text, next_text = self._summarize(image)
                self._cache.crop(0)
                self._pending = self._text.tokenize(next_text)  # what waited is lost
            else:
                # No BOS and no prompt again; what waits is fed all the same.
                event = "drop_all"
                self._cache.crop(0)
        return ReferenceTrace(
            frame=call,
            cache_end=len(self._cache),
            init_cache=self._init_cache,
            event=event,
            summary=summary,
            summary_text=summary_text,
            next_text=next_text,
        )

    def _summarize(self, image: Tensor) -> tuple[ReferenceCall, str, str]:
        """Ask for a summary, at the same frame again; the model may stay silent.

        Returns:
            The call, the summary, and the prompt that goes on from it.
        """
        query = self._text.tokenize(self._text.turn(Role.SYSTEM, SUMMARY_QUERY))
        call = self._generate(query, image, self._config.summary_max_length, is_summary=True)
        summary = self._text.clean(call.output_ids)
        content = f"{self._prompt} {summary}" if self._prompt else summary
        content = f"{content} {self._knowledge}" if self._knowledge else content
        return call, summary, self._chat.format.bos + self._text.turn(Role.SYSTEM, content)
