"""Many recorded streams at once: the transcripts of ``session``, many times faster.

A recorded stream need not be walked frame by frame. The engine runs a block of frames as if the
assistant stayed silent, reads all decisions of the block, and accepts them up to the first that
fires; what was fed beyond is forgotten. Many streams share every pass through the backbone: some
watch, some write. Whatever happens in a stream is decided by ``stream.Stream``, as in a session.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor

from proassist_lit.errors import FeatureError, ProAssistError, StreamError
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.sequence.chat import Chat
from proassist_lit.sequence.script import Script, Text
from proassist_lit.streaming.config import Strategy, StreamConfig
from proassist_lit.streaming.decoder import LlamaDecoder
from proassist_lit.streaming.rotation import KeyRotation
from proassist_lit.streaming.session import check_features
from proassist_lit.streaming.slots import SlotCache, SlotDecoder
from proassist_lit.streaming.stream import Said, Stream, heard
from proassist_lit.types import FrameOutput

NEVER = -1.0
"""A probability that no threshold is below: what silence looks like ahead of time."""


@dataclass(frozen=True)
class Recording:
    """A recorded stream to be answered.

    Attributes:
        name: name of the stream, for messages.
        script: what the users say when; of the reference, nothing is looked at unless it makes the
            context.
        features: gives (F, K, E) features, called when the stream begins.
        fps: frames per second.
        start_frame_idx: index of the first frame in the video.
    """

    name: str
    script: Script
    features: Callable[[], Tensor]
    fps: float
    start_frame_idx: int = 0


@dataclass(frozen=True)
class Answered:
    """What became of a recording.

    Attributes:
        index: its place among the recordings.
        frames: the answers, one a frame; fewer if it failed.
        error: why it failed, None if it did not.
    """

    index: int
    frames: tuple[FrameOutput, ...]
    error: ProAssistError | None = None


@dataclass
class _Slot:
    """A stream under way."""

    index: int
    recording: Recording
    stream: Stream
    features: Tensor  # (F, K, E)
    block: int
    frames: list[FrameOutput] = field(default_factory=list)
    silent_frames: int = 0  # since the last span
    gap: float = 0.0  # frames between spans, on average; 0 while there was none
    ends: list[int] = field(default_factory=list)  # last row of each frame of the block, of its own


class Engine:
    """Answers recorded streams.

    Args:
        model: in evaluation mode; its backbone must satisfy ``LlamaDecoder.fits``.
        chat: the formatter that the model was trained with.
        config: thresholds and limits; both thresholds must be set.
        num_tokens_per_img: K.
        num_slots: most streams at a time; None for what ``stream.kv_gib`` allows.
        max_block: most frames that are watched ahead.
    """

    def __init__(
        self,
        model: AssistantModel,
        chat: Chat,
        config: StreamConfig,
        *,
        num_tokens_per_img: int,
        num_slots: int | None = None,
        max_block: int = 64,
    ) -> None:
        self._model, self._chat, self._config = model, chat, config
        self._num_tokens_per_img, self._max_block = num_tokens_per_img, max_block
        self._rotation = KeyRotation(model) if config.strategy is Strategy.DROP_MIDDLE else None
        self._decoder = SlotDecoder(model)
        self._num_slots = num_slots

    @staticmethod
    def fits(model: AssistantModel) -> bool:
        """Whether the backbone can be run by an engine."""
        return LlamaDecoder.fits(model)

    @torch.inference_mode()
    def run(
        self,
        recordings: Iterable[Recording],
        *,
        on_frames: Callable[[int], None] | None = None,
    ) -> Iterator[Answered]:
        """Answer ``recordings``; yield each when it is finished, the first to finish first.

        A stream that fails is yielded with its error; the others go on.

        Args:
            recordings: in any number.
            on_frames: called with the number of frames that were answered, for progress.
        """
        waiting = deque(enumerate(recordings))
        num_slots = min(len(waiting), self._num_slots or self._slots_for_budget())
        cache: SlotCache | None = None
        slots: list[_Slot] = []
        while waiting or slots:
            while waiting and len(slots) < num_slots:
                opened = self._open(*waiting.popleft())
                if isinstance(opened, Answered):
                    yield opened
                    continue
                cache = cache or SlotCache(self._model, num_slots, self._config.max_context)
                cache.lengths[len(slots)] = 0
                slots.append(opened)
            if not slots:
                return
            assert cache is not None
            before = sum(len(slot.frames) for slot in slots)
            failed = self._step(slots, cache)
            if on_frames is not None:
                on_frames(sum(len(slot.frames) for slot in slots) - before)
            for number in reversed(range(len(slots))):
                slot = slots[number]
                error = failed.get(number)
                if error is None and len(slot.frames) < len(slot.features):
                    continue
                yield Answered(slot.index, tuple(slot.frames), error)
                last = slots.pop()
                if number < len(slots):  # keep the slots in use together
                    slots[number] = last
                    cache.move(len(slots), number)

    def _slots_for_budget(self) -> int:
        size = SlotCache.bytes_per_token(self._model) * self._config.max_context
        return max(1, min(64, int(self._config.kv_gib * 2**30 / size)))

    def _open(self, index: int, recording: Recording) -> _Slot | Answered:
        """Begin a stream, or say why it cannot begin."""
        try:
            features = recording.features()
            num_frames = len(recording.script.moments)
            if not num_frames:
                raise StreamError(f"stream {recording.name!r}: has no frames; leave it out.")
            if len(features) < num_frames:
                raise FeatureError(
                    f"stream {recording.name!r}: watches {num_frames} frames, but there are "
                    f"features of {len(features)} only; encode the whole video."
                )
            stream = Stream(
                self._chat,
                recording.script,
                self._config,
                fps=recording.fps,
                num_tokens_per_img=self._num_tokens_per_img,
                has_dst=self._model.dst_head is not None,
                start_frame_idx=recording.start_frame_idx,
                name=recording.name,
            )
            self._model.project(features[:1].flatten(0, 1).to(self._model.device))
        except ProAssistError as error:
            return Answered(index, (), error)
        return _Slot(index, recording, stream, features[:num_frames], block=min(4, self._max_block))

    def _step(self, slots: Sequence[_Slot], cache: SlotCache) -> dict[int, ProAssistError]:
        """Feed every slot something and go on with what comes out; return what failed."""
        failed: dict[int, ProAssistError] = {}
        parts: list[Tensor] = []
        counts: list[int] = []
        watching: list[int] = []
        writing: list[int] = []
        for number, slot in enumerate(slots):
            fed: list[Tensor] = []
            if slot.stream.is_writing:
                fed = [self._embed(slot.stream.feed() or [])]
                writing.append(number)
            else:
                try:
                    fed = self._plan_block(slot)
                    watching.append(number)
                except ProAssistError as error:
                    failed[number] = error
            parts += fed
            counts.append(sum(len(part) for part in fed))
        if not parts:
            return failed
        hidden = self._decoder(torch.cat(parts), counts, cache)
        firsts = [0, *accumulate(counts)]
        tokens = self._read_tokens(
            hidden,
            [firsts[i + 1] - 1 for i in writing],
            [slots[i].stream.writes_dst for i in writing],
        )
        for i, token in zip(writing, tokens, strict=True):
            slots[i].stream.take(token)
            self._carry_out_cut(slots[i], cache, i)
            if not slots[i].stream.is_writing:
                slots[i].frames.append(slots[i].stream.end())
        probs = self._read_heads(hidden, [firsts[i] + e for i in watching for e in slots[i].ends])
        for i in watching:
            mine = [next(probs) for _ in slots[i].ends]
            self._accept(slots[i], mine, cache, i)
        return failed

    def _plan_block(self, slot: _Slot) -> list[Tensor]:
        """(T, D) parts of the next block of frames, as they are fed if all of it is silent.

        Raises:
            StreamError: the next frame cannot be watched.
        """
        probe, first = slot.stream.copy(), len(slot.frames)
        parts: list[Tensor] = []
        slot.ends, rows = [], 0
        for frame in range(first, min(first + slot.block, len(slot.features))):
            try:
                probe.check()
                check_features(slot.features[frame], self._num_tokens_per_img, probe)
                ids = probe.begin(*self._texts(slot, frame))
            except StreamError:
                if frame == first:
                    raise
                break  # its turn will come, once the frames before it are answered
            if frame > first and probe.length > self._config.max_context:
                break
            if ids:
                parts.append(self._embed(ids))
            parts.append(self._model.project(slot.features[frame].to(self._model.device)))
            rows += len(ids) + self._num_tokens_per_img
            slot.ends.append(rows - 1)
            probe.decide(NEVER, NEVER)
            if probe.cut is not None or probe.is_writing:
                break  # the context is full: the strategy comes first
            probe.end()
        return parts

    def _accept(
        self,
        slot: _Slot,
        probs: Sequence[tuple[float, float | None]],
        cache: SlotCache,
        number: int,
    ) -> None:
        """Go through a block up to the first frame at which something happens."""
        stream = slot.stream
        for speak_prob, dst_prob in probs:
            stream.begin(*self._texts(slot, len(slot.frames)))
            fired = any(stream.decide(speak_prob, dst_prob))
            slot.silent_frames += 1
            if fired:
                gap = slot.silent_frames
                slot.gap = gap if not slot.gap else 0.7 * slot.gap + 0.3 * gap
                slot.silent_frames = 0
            stops = stream.is_writing or stream.cut is not None
            if stream.cut is not None:
                self._carry_out_cut(slot, cache, number)
            elif stops:  # what was watched ahead did not happen like this
                cache.lengths[number] = stream.length
            if not stream.is_writing:
                slot.frames.append(stream.end())
            if stops:
                break
        slot.block = self._next_block(slot)

    def _next_block(self, slot: _Slot) -> int:
        """Frames to watch ahead: a share of the usual gap between spans, more in long silence."""
        ahead = max(slot.gap / 3, slot.silent_frames / 2, 2.0)
        return max(1, min(self._max_block, round(ahead)))

    def _texts(self, slot: _Slot, frame: int) -> tuple[tuple[Text, ...], Said | None]:
        moment = slot.recording.script.moments[frame]
        said = Said(moment.before, moment.spans) if slot.stream.uses_reference else None
        return heard(slot.recording.script, frame), said

    def _carry_out_cut(self, slot: _Slot, cache: SlotCache, number: int) -> None:
        if slot.stream.cut is not None:
            cache.keep(number, slot.stream.cut.keep, self._rotation)
            slot.stream.cut = None

    def _read_heads(
        self, hidden: Tensor, rows: Sequence[int]
    ) -> Iterator[tuple[float, float | None]]:
        """P(speak) and P(update) at ``rows`` of (N, D)."""
        if not rows:
            return iter(())
        chosen = hidden[torch.tensor(rows, device=hidden.device)]
        speak = self._model.speak_head(chosen).float().sigmoid().tolist()
        if self._model.dst_head is None:
            return iter([(prob, None) for prob in speak])
        dst = self._model.dst_head(chosen).float().sigmoid().tolist()
        return iter(list(zip(speak, dst, strict=True)))

    def _read_tokens(
        self, hidden: Tensor, rows: Sequence[int], is_dst: Sequence[bool]
    ) -> list[int]:
        """Most probable next token at ``rows`` of (N, D)."""
        tokens = [0] * len(rows)
        apart = self._model.dst_output_head is not None
        for dst in (False, True) if apart else (False,):
            mine = [i for i in range(len(rows)) if not apart or is_dst[i] == dst]
            if mine:
                chosen = hidden[torch.tensor([rows[i] for i in mine], device=hidden.device)]
                best = self._model.lm_logits(chosen, dst=dst).argmax(-1).tolist()
                for i, token in zip(mine, best, strict=True):
                    tokens[i] = token
        return tokens

    def _embed(self, ids: Sequence[int]) -> Tensor:
        """(T, D) embeddings."""
        return self._model.embed_tokens(torch.tensor(ids, device=self._model.device))
