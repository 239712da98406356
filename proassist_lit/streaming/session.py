"""One stream, frame by frame: live, or recorded. What it does is defined in ``stream``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from proassist_lit.model.assistant import AssistantModel
from proassist_lit.sequence.chat import Chat
from proassist_lit.sequence.script import Script, Text
from proassist_lit.streaming import inputs
from proassist_lit.streaming.arrivals import Said
from proassist_lit.streaming.cache import KVCache
from proassist_lit.streaming.config import Strategy, StreamConfig
from proassist_lit.streaming.decoder import Decoder, make_decoder
from proassist_lit.streaming.policy import Thresholds
from proassist_lit.streaming.recording import check_length
from proassist_lit.streaming.rotation import KeyRotation
from proassist_lit.streaming.stream import Stream
from proassist_lit.types import DialogueState, FrameOutput


@dataclass(frozen=True)
class Snapshot:
    """A session at some frame, to go back to."""

    stream: Stream
    cache: KVCache


class Session:
    """An assistant that watches one stream. All state lives here, none on the model.

    Args:
        model: in evaluation mode.
        chat: the formatter that the model was trained with.
        script: prompt, steps and initial state of the stream; its moments are not looked at.
        config: thresholds and limits; both thresholds must be set.
        fps: frames per second.
        num_tokens_per_img: K.
        start_frame_idx: index of the first frame in the video.
        opening: what is said before the first frame, as far as it is known: it may have to stay.
        name: name of the stream, for messages.
        decoder: how tokens are fed; None for the fastest way that fits the backbone.
        encode: makes (K, E) features of an (H, W, 3) uint8 picture, for live use.

    Raises:
        ConfigError: a threshold is missing, the limits leave no room, or the backbone cannot do
            what the strategy needs.
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
        opening: Sequence[Text] = (),
        name: str = "stream",
        decoder: Decoder | None = None,
        encode: Callable[[Any], Tensor] | None = None,
    ) -> None:
        self._model, self._num_tokens_per_img = model, num_tokens_per_img
        self._decoder, self._encode = decoder or make_decoder(model, config.kernels), encode
        self._rotation = KeyRotation(model) if config.strategy is Strategy.DROP_MIDDLE else None
        self._stream = Stream(
            chat,
            script,
            config,
            fps=fps,
            num_tokens_per_img=num_tokens_per_img,
            has_dst=model.dst_head is not None,
            start_frame_idx=start_frame_idx,
            opening=opening,
            name=name,
        )
        self._cache = KVCache(model.lm.config.num_hidden_layers)
        self._beginning = self.snapshot()

    @property
    def state(self) -> DialogueState:
        """State of every step, as tracked."""
        return self._stream.state

    @property
    def context_len(self) -> int:
        """Tokens of the context, those that wait for the next frame included."""
        return self._stream.context_len

    @property
    def thresholds(self) -> Thresholds:
        """What the probabilities are compared with; may be set between frames."""
        return self._stream.thresholds

    @thresholds.setter
    def thresholds(self, thresholds: Thresholds) -> None:
        self._stream.thresholds = thresholds

    @property
    def frame_idx(self) -> int:
        """Index in the video of the frame that is watched next."""
        return self._stream.frame_idx

    def skip_to(self, frame_idx: int) -> None:
        """Let the frames before ``frame_idx`` pass unseen, as if there had been none."""
        assert frame_idx >= self._stream.frame_idx, "time does not go back"
        self._stream.frame_idx = frame_idx

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
            user_text: what arrived since the frame before: a user's words, or turns of text;
                None where nothing did.
            said: what the reference says at this frame, with ``stream.context=reference``.

        Returns:
            Probabilities, decisions, words and state at this frame.

        Raises:
            StreamError: the features are not finite or of the wrong number, or the context is
                full and the strategy is ``none``. The session stays as it was.
            FeatureError: the features have another width than the model's projector.
        """
        stream, model = self._stream, self._model
        features = inputs.read_features(frame, self._encode)
        where = f"stream {stream.name!r}, frame {stream.frame_idx}"
        inputs.check_features(features, self._num_tokens_per_img, where)
        stream.check()
        model.check_width(features, where=where)
        image = model.project(features.to(model.device))

        ids = stream.begin(inputs.as_texts(user_text), said)
        hidden = self._decoder(
            torch.cat([model.embed_ids(ids), image]) if ids else image, self._cache
        )
        speak_prob = float(model.speak_head(hidden).float().sigmoid())
        dst_prob = None
        if model.dst_head is not None and stream.has_dst:
            dst_prob = float(model.dst_head(hidden).float().sigmoid())
        stream.decide(speak_prob, dst_prob)
        self._carry_out_cut()
        while (fed := stream.feed()) is not None:
            hidden = self._decoder(model.embed_ids(fed), self._cache)
            stream.take(int(model.lm_logits(hidden, dst=stream.writes_dst).argmax()))
            self._carry_out_cut()
        return stream.end()

    def check_length(self, script: Script) -> None:
        """Refuse a recording that would fill the context before its end; see ``recording``.

        Raises:
            StreamError: with ``stream.strategy=none``, even if nothing is said.
        """
        check_length(self._stream, script)

    def snapshot(self) -> Snapshot:
        """The session as it is now."""
        return Snapshot(self._stream.copy(), self._cache.fork())

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to ``snapshot``, which can be gone back to again."""
        self._stream, self._cache = snapshot.stream.copy(), snapshot.cache.fork()

    def reset(self) -> None:
        """Go back to the beginning of the stream."""
        self.restore(self._beginning)

    def _carry_out_cut(self) -> None:
        if self._stream.cut is not None:
            self._cache.keep(self._stream.cut.keep, self._rotation)
            self._stream.cut = None
