"""One stream: the definition of what streaming means.

For every frame: the text that arrived and the frame's image tokens go through the model with the
cache; both heads are read at the last image token and both decisions are made; then the dst span,
then the utterance are written; then, if the context is nearly full, the context strategy runs. All
state lives here, none on the model. No decision ever sees a reference.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from proassist_lit.errors import ConfigError, StreamError
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.sequence.builder import prefix_ids, text_ids
from proassist_lit.sequence.chat import Chat, Role
from proassist_lit.sequence.script import KNOWLEDGE, Script, Text
from proassist_lit.streaming.cache import KVCache
from proassist_lit.streaming.config import Strategy, StreamConfig
from proassist_lit.streaming.decoder import Decoder, make_decoder
from proassist_lit.streaming.policy import ThresholdPolicy
from proassist_lit.types import FrameOutput, StepState, Update, apply_updates, parse_updates


class Session:
    """An assistant that watches one stream.

    Args:
        model: in evaluation mode.
        chat: the formatter that the model was trained with.
        script: prompt, steps and initial state of the stream; its moments are not looked at.
        config: thresholds and limits; both thresholds must be set.
        fps: frames per second.
        num_tokens_per_img: K.
        start_frame_idx: index of the first frame in the video.
        name: name of the stream, for messages.
        decoder: how tokens are fed; None for the fastest way that fits the backbone.
    """

    def __init__(
        self,
        model: AssistantModel,
        chat: Chat,
        script: Script,
        config: StreamConfig,
        *,
        fps: float,
        num_tokens_per_img: int,
        start_frame_idx: int = 0,
        name: str = "stream",
        decoder: Decoder | None = None,
    ) -> None:
        if config.theta_speak is None or config.theta_dst is None:
            raise ConfigError(
                "stream.theta_speak and stream.theta_dst are not set; set both, or let the "
                "evaluation choose them on val."
            )
        openings = len(chat.opening_ids(Role.DST)) + len(chat.opening_ids(Role.ASSISTANT))
        closings = 2 * (1 + len(chat.after_turn_ids))
        needed = (
            num_tokens_per_img + len(chat.separator_ids) + openings + closings
            + config.max_dst_tokens + config.max_new_tokens
        )  # fmt: skip
        if config.reserve < needed:
            raise ConfigError(
                f"stream.reserve is {config.reserve}, but one frame and what may be said after it "
                f"takes {needed} tokens; raise stream.reserve, or lower stream.max_new_tokens or "
                "stream.max_dst_tokens."
            )
        self._model, self._chat, self._script, self._config = model, chat, script, config
        self._fps, self._num_tokens_per_img = fps, num_tokens_per_img
        self._frame_idx, self._name = start_frame_idx, name
        self._speak_policy = ThresholdPolicy(config.theta_speak, config.min_gap_frames)
        self._dst_policy = ThresholdPolicy(config.theta_dst)
        self._decoder = decoder or make_decoder(model)
        self._cache = KVCache(model.lm.config.num_hidden_layers)
        self._pending = prefix_ids(chat, script, script.initial_state)
        if len(self._pending) >= config.max_context - config.reserve:
            raise ConfigError(
                f"stream {name!r}: the prompt takes {len(self._pending)} tokens, which leaves no "
                f"room for frames in stream.max_context {config.max_context} less stream.reserve "
                f"{config.reserve}; raise stream.max_context."
            )
        self._after_silence = False
        self._knowledge = ""
        self.state: dict[str, StepState] = dict(script.initial_state)

    @property
    def context_len(self) -> int:
        """Tokens of the context, those that wait for the next frame included."""
        return len(self._cache) + len(self._pending)

    @torch.inference_mode()
    def step(self, features: Tensor, texts: str | Sequence[Text] = ()) -> FrameOutput:
        """Watch one frame and answer.

        Args:
            features: (K, E) features of the frame.
            texts: what arrived since the frame before: a user's words, or turns of text.

        Returns:
            Probabilities, decisions, words and state at this frame.

        Raises:
            StreamError: the features are not finite or of the wrong number, or the context is
                full and the strategy is ``none``. The session stays as it was.
        """
        if isinstance(texts, str):
            texts = (Text(role=Role.USER, content=texts),) if texts else ()
        self._check(features)
        hidden = self._watch(features, tuple(texts))
        for heard in texts:
            if heard.role is Role.SYSTEM and heard.content.startswith(KNOWLEDGE):
                self._knowledge = self._knowledge or heard.content
        speak_prob = float(self._model.speak_head(hidden).float().sigmoid())
        dst_prob = None
        if self._model.dst_head is not None and self._script.steps:
            dst_prob = float(self._model.dst_head(hidden).float().sigmoid())
        speak = self._speak_policy.decide(speak_prob)
        dst = dst_prob is not None and self._dst_policy.decide(dst_prob)

        updates: tuple[Update, ...] = ()
        dst_invalid, text = 0, ""
        if dst:
            written = self._write(Role.DST, self._config.max_dst_tokens)
            updates, num_unreadable = parse_updates(written)
            self.state, num_refused = apply_updates(self.state, updates)
            dst_invalid = num_unreadable + num_refused
        if speak:
            text = self._write(Role.ASSISTANT, self._config.max_new_tokens)
        self._after_silence = not (speak or dst)
        context_len = self.context_len
        event = self._manage_context()
        output = FrameOutput(
            frame_idx=self._frame_idx,
            time_s=self._frame_idx / self._fps,
            speak_prob=speak_prob,
            dst_prob=dst_prob,
            speak=speak,
            dst=dst,
            text=text,
            updates=updates,
            dst_invalid=dst_invalid,
            state=dict(self.state),
            user_text=" ".join(text.content for text in texts),
            context_len=context_len,
            event=event,
        )
        self._frame_idx += 1
        return output

    def _check(self, features: Tensor) -> None:
        where = f"stream {self._name!r}, frame {self._frame_idx}"
        if features.ndim != 2 or features.shape[0] != self._num_tokens_per_img:
            raise StreamError(
                f"{where}: features are {tuple(features.shape)}, expected "
                f"({self._num_tokens_per_img}, E); encode with the grids that "
                "data.num_tokens_per_img names."
            )
        if not torch.isfinite(features).all():
            raise StreamError(
                f"{where}: features hold NaN or infinite values; encode the video again."
            )
        limit = self._config.max_context - self._config.reserve
        if self._config.strategy is Strategy.NONE and self.context_len >= limit:
            raise StreamError(
                f"{where}: the context is full ({self.context_len} of {self._config.max_context} "
                f"tokens, {self._config.reserve} kept in reserve); raise stream.max_context or "
                "choose a stream.strategy."
            )

    def _watch(self, features: Tensor, texts: tuple[Text, ...]) -> Tensor:
        """Feed what waits, the texts, and the frame; return the last hidden state, (D,)."""
        chat, model = self._chat, self._model
        image = model.project(features.to(model.device))  # first: it may refuse
        ids = self._pending + text_ids(chat, texts)
        if self._after_silence and not texts:
            ids = self._pending + chat.separator_ids
        self._pending = []
        embeds = image
        if ids:
            words = model.embed_tokens(torch.tensor(ids, device=model.device))
            embeds = torch.cat([words, image.to(words.dtype)])
        return self._decoder(embeds, self._cache)

    def _write(self, role: Role, max_tokens: int) -> str:
        """Write one span greedily. Opening and closing are fed, never generated.

        The closing waits for the next thing that is fed: the tokens and their order are the same,
        and one step of the model is saved.
        """
        chat, model = self._chat, self._model
        feed = self._pending + chat.opening_ids(role)
        written: list[int] = []
        while True:
            embeds = model.embed_tokens(torch.tensor(feed, device=model.device))
            hidden = self._decoder(embeds, self._cache)
            token = int(model.lm_logits(hidden, dst=role is Role.DST).argmax())
            if token == chat.end_of_turn_id or len(written) == max_tokens:
                break
            written.append(token)
            feed = [token]
        self._pending = [chat.end_of_turn_id, *chat.after_turn_ids]
        return chat.decode(written)

    def _manage_context(self) -> str | None:
        """Run the context strategy if the context is nearly full; name it if it ran."""
        strategy = self._config.strategy
        if strategy is Strategy.NONE:
            return None
        if self.context_len < self._config.max_context - self._config.reserve:
            return None
        state = self.state if strategy is Strategy.DST_REFRESH else self._script.initial_state
        self._cache.crop(0)
        self._pending = prefix_ids(self._chat, self._script, state, self._knowledge)
        self._after_silence = False
        return strategy.value
