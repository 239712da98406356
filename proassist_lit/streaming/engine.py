"""Many recorded streams at once: the transcripts of ``session``, many times faster.

A recorded stream need not be walked frame by frame. The engine runs a block of frames as if the
assistant stayed silent, reads all decisions of the block, and accepts them up to the first that
fires; what was fed beyond is forgotten. Many streams, and many thresholds of each, share every
pass through the backbone: some watch, some write. Whatever happens in a stream is decided by
``stream.Stream``, as in a session.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, count

import torch
from torch import Tensor

from proassist_lit.errors import ProAssistError, StreamError
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.sequence.chat import Chat
from proassist_lit.streaming.arrivals import opening
from proassist_lit.streaming.branch import Branch
from proassist_lit.streaming.config import ContextSource, Strategy, StreamConfig
from proassist_lit.streaming.house import House
from proassist_lit.streaming.llama import Llama
from proassist_lit.streaming.policy import Thresholds
from proassist_lit.streaming.recording import Answered, Recording, check_length
from proassist_lit.streaming.rotation import KeyRotation
from proassist_lit.streaming.slot import Fed, Slot
from proassist_lit.streaming.slot_cache import SlotCache
from proassist_lit.streaming.slot_decoder import SlotDecoder
from proassist_lit.streaming.stream import Stream, num_common
from proassist_lit.streaming.vocabulary import Vocabulary

WORTH_SHARING = 8
"""Tokens at the beginning of two streams that are rather copied than fed twice."""

MARGIN_16 = 0.03
"""How near probabilities are by rounding alone, one stream at a time or many, in 16 bits."""

STEP_ROWS = {"cpu": 12.0}
"""Tokens that cost as much as what every step costs (it reads all weights), by device."""

STEP_ROWS_ELSEWHERE = 256.0
"""The same of accelerators, where arithmetic is cheap beside memory."""

MOST_STREAMS = 64
"""More at a time make the products no faster."""


class Engine:
    """Answers recorded streams.

    Args:
        model: in evaluation mode; its backbone must satisfy ``Llama.fits``.
        chat: the formatter that the model was trained with.
        config: thresholds and limits; both thresholds must be set.
        num_tokens_per_img: K.
        thresholds: answer every stream with each of these; None for those of ``config``.
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
        thresholds: Sequence[Thresholds] | None = None,
        num_slots: int | None = None,
        max_block: int = 64,
    ) -> None:
        self._model, self._chat, self._config = model, chat, config
        self._num_tokens_per_img, self._max_block = num_tokens_per_img, max_block
        self._thresholds = tuple(thresholds or [Thresholds.of(config)])
        self._rotation = KeyRotation(model) if config.strategy is Strategy.DROP_MIDDLE else None
        self._decoder = SlotDecoder(model, config.kernels)
        self._vocabulary = Vocabulary(model, config.kernels)
        self._num_slots = num_slots

    @staticmethod
    def fits(model: AssistantModel) -> bool:
        """Whether the backbone can be run by an engine."""
        return Llama.fits(model)

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
        num_slots = self._num_slots or self._slots_for_budget()
        waiting = deque(
            (index, recording, rows)
            for index, recording in enumerate(recordings)
            for rows in self._shares(num_slots)
        )
        num_slots = min(num_slots, sum(self._places(rows) for _, _, rows in waiting))
        house: House | None = None
        slots: dict[int, Slot] = {}  # by their place in the cache, ascending
        while waiting or slots:
            taken = sum(self._places(slot.branches[0].rows) for slot in slots.values())
            while waiting and num_slots - taken >= self._places(waiting[0][2]):
                house = house or self._make_house(num_slots)
                index, recording, rows = waiting.popleft()
                try:
                    slot = self._open(house, _free_place(slots), index, recording, rows)
                except ProAssistError as reason:
                    yield from (Answered(index, (), reason, row) for row in rows)
                    continue
                slots[slot.place] = slot
                taken += self._places(rows)
            if not slots:
                continue
            assert house is not None
            before = house.num_answered
            slots = dict(sorted(slots.items()))
            failed = self._step(slots, house)
            if on_frames is not None:
                on_frames(house.num_answered - before)
            for place, slot in list(slots.items()):
                error = failed.get(place)
                if error is None and not slot.is_done:
                    continue
                for branch in slot.branches:
                    for row in branch.rows:
                        yield Answered(slot.index, tuple(branch.frames), error, row)
                del slots[place]
                house.cache.crop(place, 0)

    def _slots_for_budget(self) -> int:
        size = SlotCache.bytes_per_token(self._model) * self._config.max_context
        most = MOST_STREAMS * self._places(self._thresholds)
        return max(1, min(most, int(self._config.kv_gib * 2**30 / size)))

    def _places(self, rows: Sequence[object]) -> int:
        """Slots that a recording may need for ``rows``: each may part from the others in the end.

        Where the reference makes the context they never do.
        """
        return 1 if self._config.context is ContextSource.REFERENCE else len(rows)

    def _shares(self, num_slots: int) -> list[list[int]]:
        """The rows of thresholds in as few shares as find room."""
        rows = list(range(len(self._thresholds)))
        if self._places(rows) <= num_slots:
            return [rows]
        return [rows[i : i + num_slots] for i in range(0, len(rows), num_slots)]

    def _margin(self) -> float:
        if self._config.reread_margin is not None:
            return self._config.reread_margin
        return MARGIN_16 if self._model.dtype in (torch.bfloat16, torch.float16) else 0.0

    def _make_house(self, num_slots: int) -> House:
        cache = SlotCache(self._model, num_slots, self._config.max_context)
        margin = self._margin()
        rises = any(thresholds.rise is not None for thresholds in self._thresholds)
        return House(
            cache, self._thresholds, self._rotation, self._num_tokens_per_img, self._max_block,
            margin=margin, reads_alone=margin > 0 and (rises or self._config.rule.looks_back),
            step_rows=STEP_ROWS.get(self._model.device.type, STEP_ROWS_ELSEWHERE),
        )  # fmt: skip

    def _open(
        self, house: House, place: int, index: int, recording: Recording, rows: list[int]
    ) -> Slot:
        """Begin a stream.

        Raises:
            ProAssistError: it cannot begin.
        """
        features = recording.features()
        stream = Stream(
            self._chat,
            recording.script,
            self._config,
            fps=recording.fps,
            num_tokens_per_img=self._num_tokens_per_img,
            has_dst=self._model.dst_head is not None,
            start_frame_idx=recording.start_frame_idx,
            opening=opening(recording.script, self._config.context),
            name=recording.name,
        )
        slot = Slot(house, place, index, recording, features, Branch(stream, list(rows)))
        check_length(stream, recording.script)
        self._model.check_width(features, where=f"stream {recording.name!r}")
        return slot

    def _step(self, slots: dict[int, Slot], house: House) -> dict[int, ProAssistError]:
        """Feed every slot something and go on with what comes out; return what failed, by place."""
        failed: dict[int, ProAssistError] = {}
        fed: dict[int, Fed] = {}
        for place, slot in slots.items():
            try:
                if not slot.is_new or self._shares_beginning(slot, slots.values()):
                    fed[place] = slot.plan(len(slots))
            except ProAssistError as error:
                failed[place] = error
        if not fed:
            return failed
        fed = dict(sorted(fed.items(), key=lambda item: slots[item[0]].is_alone))
        counts = {place: len(one.ids) for place, one in fed.items()}
        hidden = self._decode(fed, counts, slots, house)
        firsts = dict(zip(fed, accumulate(counts.values(), initial=0), strict=False))
        writing = [place for place in fed if slots[place].is_writing]
        watching = [place for place, one in fed.items() if one.ends]
        tokens = self._vocabulary.best(
            hidden,
            [firsts[place] + counts[place] - 1 for place in writing],
            [slots[place].writes_dst for place in writing],
        )
        probs = self._read_heads(
            hidden, [firsts[place] + end for place in watching for end in fed[place].ends]
        )

        def part(slot: Slot, branch: Branch) -> None:
            place = _free_place(slots)
            slots[place] = slot.moved(branch, place)

        for place, token in zip(writing, tokens, strict=True):
            slots[place].take(token)
        for place in watching:
            slots[place].accept([next(probs) for _ in fed[place].ends], part)
        return failed

    def _decode(
        self, fed: Mapping[int, Fed], counts: Mapping[int, int], slots: Mapping[int, Slot],
        house: House,
    ) -> Tensor:  # fmt: skip
        """(N, D) last hidden states of all that is fed; of those alone the last one everywhere."""
        embeds = self._embed(list(fed.values()))
        alone = [place for place in fed if slots[place].is_alone]
        if not alone:
            return self._decoder(embeds, counts, house.cache)
        together = {place: n for place, n in counts.items() if place not in alone}
        sizes = [sum(together.values()), *(counts[place] for place in alone)]
        first, *others = torch.split(embeds, sizes)
        hidden = [self._decoder(first, together, house.cache)] if together else []
        for place, part in zip(alone, others, strict=True):  # as a session reads it
            last = self._decoder.alone(part, place, house.cache)
            hidden.append(last.expand(len(part), -1))
        return torch.cat(hidden)

    def _shares_beginning(self, slot: Slot, slots: Iterable[Slot]) -> bool:
        """Copy what ``slot``, still empty, begins with from another; False if it had better wait.

        Raises:
            StreamError: its beginning is too long.
        """
        mine, most, source = slot.opening_ids(), WORTH_SHARING - 1, slot
        for other in slots:
            if other is slot or (other.is_new and other.place > slot.place):
                continue
            try:
                theirs = other.opening_ids() if other.is_new else other.stream.prefix
            except StreamError:
                continue  # it fails by itself
            held = slot.house.cache.lengths[other.place]
            same = num_common(mine, theirs if other.is_new else theirs[:held])
            if same > most:
                most, source = same, other
        held = slot.house.cache.lengths[source.place]
        if held:
            slot.house.cache.copy(source.place, slot.place, most)
        return source is slot or held > 0

    def _embed(self, fed: Sequence[Fed]) -> Tensor:
        """(N, D) embeddings of all that is fed."""
        device = self._model.device
        ids = [token for one in fed for token in one.ids]
        embeds = self._model.embed_ids(ids)
        features = [one.features for one in fed if one.features is not None]
        if features:
            firsts = accumulate((len(one.ids) for one in fed), initial=0)
            images = [
                first + i for first, one in zip(firsts, fed, strict=False) for i in one.images
            ]
            projected = self._model.project(torch.cat(features).to(device))
            embeds[torch.tensor(images, device=device)] = projected.to(embeds.dtype)
        return embeds

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


def _free_place(slots: Mapping[int, Slot]) -> int:
    """The first place that no slot has."""
    return next(place for place in count() if place not in slots)
