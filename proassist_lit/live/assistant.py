"""A trained assistant that is ready to watch: everything a stream needs but the stream."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from proassist_lit.errors import ConfigError
from proassist_lit.live.task import Task
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.sequence.chat import Chat
from proassist_lit.streaming.config import ContextSource, StreamConfig
from proassist_lit.streaming.decoder import Decoder, make_decoder
from proassist_lit.streaming.session import Session
from proassist_lit.vision.encoder import FrameEncoder, grids_for


@dataclass(frozen=True, kw_only=True)
class LiveAssistant:
    """Model and encoder, with how they are run. Streams are its sessions; it holds none of them.

    Attributes:
        model: in evaluation mode.
        chat: the formatter that the model was trained with.
        config: thresholds and limits; both thresholds are set.
        encoder: makes features of pictures.
        num_tokens_per_img: K.
        fps: frames per second that the model was trained with.

    Raises:
        ConfigError: the encoder's features are not those that the model's projector reads, or the
            context is to be the reference's.
    """

    model: AssistantModel
    chat: Chat
    config: StreamConfig
    encoder: FrameEncoder
    num_tokens_per_img: int
    fps: float

    def __post_init__(self) -> None:
        if self.config.context is ContextSource.REFERENCE:
            raise ConfigError(
                "stream.context=reference: a live stream has no reference, so the assistant would "
                "hear nobody and forget what it said; give --set stream.context=own."
            )
        wanted = self.model.projector.vision_size
        if self.encoder.width != wanted:
            raise ConfigError(
                f"encoder {self.encoder.name}: its features are {self.encoder.width} wide, but the "
                f"model's projector reads {wanted}; name the encoder that the model was trained "
                "with by --encoder."
            )

    @cached_property
    def grids(self) -> tuple[str, ...]:
        """Names of the grids that make a frame's tokens, in order."""
        return grids_for(self.num_tokens_per_img)

    @cached_property
    def decoder(self) -> Decoder:
        """What feeds tokens; one for all streams, which must take turns."""
        return make_decoder(self.model, self.config.kernels)

    def session(self, task: Task, *, name: str = "live", start_frame_idx: int = 0) -> Session:
        """A stream that begins.

        Raises:
            ConfigError: the limits leave no room for words, or the backbone cannot do what the
                context strategy needs.
        """
        return Session(
            self.model, self.chat, task.script(), self.config, fps=self.fps,
            num_tokens_per_img=self.num_tokens_per_img, start_frame_idx=start_frame_idx,
            opening=task.opening, name=name, decoder=self.decoder, encode=self.glance,
        )  # fmt: skip

    def look(self, frames: NDArray[np.uint8]) -> Tensor:
        """(F, K, E) float32 features of (F, H, W, 3) uint8 pictures, as ``encode`` makes them."""
        grids = self.encoder.encode(frames, self.grids)
        return torch.cat([torch.from_numpy(grids[grid]).float() for grid in self.grids], dim=1)

    def glance(self, frame: NDArray[np.uint8]) -> Tensor:
        """(K, E) float32 features of one (H, W, 3) uint8 picture that cannot wait for others.

        A network rounds one picture alone otherwise than a unit of them, in the last digits.
        """
        grids = self.encoder.encode_prepared(self.encoder.prepare(frame[None]), self.grids)
        return torch.cat([grids[grid][0].cpu().float() for grid in self.grids])
