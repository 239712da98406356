"""Stand-in frames for recordings without a video, drawn from the timeline.

A frame is a function of the state of the work and of noise only. It knows nothing of the dialogue:
two dialogues over one timeline have byte-identical frames. What happened can only be known by
looking:

* the *shelf* at the top holds every object of the task and some look-alikes, in random places;
* the *board* in the middle shows the object in the hands. Work covers it from below with a
  darker, striped finish; when the work is done, the object has a bright rim. The tool and the hand
  are on it while they work, and away in a pause;
* wrong work spills something on both sides of the board;
* where object and tool leave open what is done, a sign beside the board stands for the movement of
  the hands, which a small still picture cannot show;
* the *tray* at the bottom holds what is finished;
* a stranger to the task may wander through the picture.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proassist_lit.data.appearance import appearance, shape_mask
from proassist_lit.data.seeding import stable_rng
from proassist_lit.data.timeline import Activity, ActivityKind, Timeline

FRAME_SIZE = 64
"""Height and width of a stand-in frame, pixels."""

Image = NDArray[np.uint8]

_SKIN = (232, 190, 160)
_RIM = (255, 255, 255)
_SPILL = (20, 16, 40)
_SHELF_Y, _BOARD_Y, _TRAY_Y = 2, 17, 53
_ICON, _BOARD_ICON, _TOOL_ICON = 9, 28, 13
_SIGN, _SIGN_Y, _SIGN_X = 11, 16, 51
_DONE_VISIBLE_S = 2.0
_MOST_OVERLAP = 9
"""Stretches that may go on at once; earlier ones are not looked at."""


@dataclass(frozen=True)
class _Look:
    """Everything in the picture that carries no meaning; drawn once for a recording."""

    table: NDArray[np.int16]  # (H, W, 3)
    slots: tuple[str, ...]  # item in each place of the shelf
    board_x: int
    noise: NDArray[np.int16]  # (n, H, W, 1)


def _look(timeline: Timeline) -> _Look:
    rng = stable_rng("look", timeline.scene_seed)
    base = np.array([150, 140, 128]) + rng.integers(-22, 23, 3)
    slope = rng.integers(-16, 17)
    table = np.empty((FRAME_SIZE, FRAME_SIZE, 3), np.int16)
    table[:] = base
    table += np.linspace(-slope, slope, FRAME_SIZE).astype(np.int16)[:, None, None]
    items = sorted({a.item for a in timeline.activities if a.item})
    items += [str(name) for name in timeline.metadata.get("shelf", ())]
    slots = list(dict.fromkeys(items))[:6]
    rng.shuffle(slots)
    noise = rng.normal(0, 7, (16, FRAME_SIZE, FRAME_SIZE, 1)).astype(np.int16)
    return _Look(table, tuple(slots), int(16 + rng.integers(-3, 4)), noise)


class Renderer:
    """Draws the stand-in frames of one recording.

    Args:
        timeline: what happened; only ``activities``, the steps' times, ``scene_seed`` and
            ``metadata["shelf"]`` are looked at.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._look = _look(timeline)
        self._works = sorted(
            (a for a in timeline.activities if a.kind is not ActivityKind.DISTRACTION),
            key=lambda a: a.start_s,
        )
        self._work_starts = [a.start_s for a in self._works]
        self._distractions = [a for a in timeline.activities if a.kind is ActivityKind.DISTRACTION]
        self._done = sorted(
            ((s.end_s, s.item) for s in timeline.steps if s.end_s is not None),
        )

    def frame(self, frame_idx: int, fps: float) -> Image:
        """(64, 64, 3) uint8 RGB picture of frame ``frame_idx``."""
        time_s = frame_idx / fps
        rng = stable_rng("frame", self._timeline.scene_seed, frame_idx)
        picture = self._look.table.copy()
        current = self._activity_at(time_s)
        finished = self._finished_just_before(time_s) if current is None else None
        on_board = current.item if current else (finished or "")

        self._draw_shelf(picture, hidden=on_board)
        self._draw_tray(picture, time_s)
        self._draw_board(picture, current, finished, time_s, rng)
        for distraction in self._distractions:
            if distraction.start_s <= time_s < distraction.end_s:
                self._draw_stranger(picture, distraction, time_s)

        picture += self._look.noise[int(rng.integers(len(self._look.noise)))]
        picture += np.int16(rng.integers(-6, 7))
        return np.clip(picture, 0, 255).astype(np.uint8)

    def frames(self, start: int, end: int, fps: float) -> Image:
        """(end - start, 64, 64, 3) uint8: frames ``start`` .. ``end - 1``."""
        return np.stack([self.frame(i, fps) for i in range(start, end)])

    def _activity_at(self, time_s: float) -> Activity | None:
        # Of several stretches that overlap (real recordings), the one that began last is seen.
        begun = bisect_right(self._work_starts, time_s)
        for work in reversed(self._works[max(begun - _MOST_OVERLAP, 0) : begun]):
            if time_s < work.end_s:
                return work
        return None

    def _finished_just_before(self, time_s: float) -> str | None:
        for end_s, item in reversed(self._done):
            if end_s <= time_s:
                return item if time_s - end_s < _DONE_VISIBLE_S else None
        return None

    def _draw_shelf(self, picture: NDArray[np.int16], hidden: str) -> None:
        picture[0 : _SHELF_Y + _ICON + 1] -= 30
        for slot, name in enumerate(self._look.slots):
            if name != hidden:
                look = appearance(name)
                mask = shape_mask(look.shape, _ICON)
                _paint(picture, mask, _SHELF_Y, 1 + slot * (_ICON + 1), look.color)

    def _draw_tray(self, picture: NDArray[np.int16], time_s: float) -> None:
        picture[_TRAY_Y - 1 :] += 24
        done = [item for end_s, item in self._done if end_s + _DONE_VISIBLE_S <= time_s]
        for slot, name in enumerate(done[-6:]):
            look = appearance(name)
            color = tuple(c * 2 // 3 for c in look.color)
            _paint(picture, shape_mask(look.shape, _ICON), _TRAY_Y, 1 + slot * (_ICON + 1), color)

    def _draw_board(
        self,
        picture: NDArray[np.int16],
        current: Activity | None,
        finished: str | None,
        time_s: float,
        rng: np.random.Generator,
    ) -> None:
        x, size = self._look.board_x, _BOARD_ICON
        picture[_BOARD_Y - 2 : _BOARD_Y + size + 2, x - 2 : x + size + 2] = (96, 84, 70)
        idle_x = int(rng.integers(48, 54))
        if current is None:
            if finished:
                self._draw_work(picture, finished, 1.0)
            _paint(picture, shape_mask("disc", 10), int(rng.integers(28, 40)), idle_x, _SKIN)
            return
        span = max(current.end_s - current.start_s, 1e-6)
        share = (time_s - current.start_s) / span
        begin, end = current.progress
        self._draw_work(picture, current.item, min(begin + (end - begin) * share, 0.999))
        if current.kind is ActivityKind.MISTAKE:
            self._draw_spill(picture)
        if current.verb:
            look = appearance(f"to {current.verb}")
            _paint(picture, shape_mask(look.shape, _SIGN), _SIGN_Y, _SIGN_X, look.color)
        working = current.kind in (ActivityKind.WORK, ActivityKind.MISTAKE) and current.tool
        if working and end > begin:
            # At work the tool moves over the object; the hand holds its end.
            tool_y = _BOARD_Y + int(rng.integers(0, 8))
            tool_x = x + int(rng.integers(10, 16))
            look = appearance(current.tool)
            grip_y, grip_x = tool_y + 8, tool_x + 9
            _paint(picture, shape_mask("disc", 10), grip_y, grip_x, _SKIN)
            _paint(picture, np.ones((_TOOL_ICON, _TOOL_ICON), bool), tool_y, tool_x, (30, 30, 34))
            mask = shape_mask(look.shape, _TOOL_ICON - 2)
            _paint(picture, mask, tool_y + 1, tool_x + 1, look.color)
        elif current.kind in (ActivityKind.FALSE_START, ActivityKind.UNDO):
            # The bare hand carries the object in or out.
            _paint(picture, shape_mask("disc", 10), _BOARD_Y + 14, x + 14, _SKIN)
        else:
            _paint(picture, shape_mask("disc", 10), int(rng.integers(28, 40)), idle_x, _SKIN)

    def _draw_work(self, picture: NDArray[np.int16], item: str, progress: float) -> None:
        look = appearance(item)
        y, x, size = _BOARD_Y, self._look.board_x, _BOARD_ICON
        mask = shape_mask(look.shape, size)
        if progress >= 1.0:
            rim = shape_mask("square", size + 4)
            _paint(picture, rim, y - 2, x - 2, _RIM)
        _paint(picture, mask, y, x, look.color)
        rows = round(size * min(progress, 1.0))
        if rows:
            worked = mask.copy()
            worked[: size - rows] = False
            worked[:, ::4] = False
            _paint(picture, worked, y, x, tuple(c // 3 for c in look.color))

    def _draw_spill(self, picture: NDArray[np.int16]) -> None:
        x, size = self._look.board_x, 12
        for y, left in ((_BOARD_Y + 20, x - 4 - size), (_BOARD_Y + 24, x + _BOARD_ICON + 4)):
            _paint(picture, shape_mask("disc", size), y, left, _SPILL)

    def _draw_stranger(
        self, picture: NDArray[np.int16], distraction: Activity, time_s: float
    ) -> None:
        rng = stable_rng("stranger", self._timeline.scene_seed, distraction.start_s)
        color = tuple(int(c) for c in rng.integers(30, 226, 3))
        share = (time_s - distraction.start_s) / (distraction.end_s - distraction.start_s)
        y = int(rng.integers(10, 44))
        x = int(-10 + share * 74) if rng.random() < 0.5 else int(64 - share * 74)
        _paint(picture, shape_mask("disc", 11), y, x, color)


def _paint(
    picture: NDArray[np.int16],
    mask: NDArray[np.bool_],
    y: int,
    x: int,
    color: tuple[int, ...],
) -> None:
    """Colour the pixels under ``mask`` with its corner at (y, x); parts outside are cut off."""
    height, width = mask.shape
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + height, picture.shape[0]), min(x + width, picture.shape[1])
    if top < bottom and left < right:
        part = mask[top - y : bottom - y, left - x : right - x]
        picture[top:bottom, left:right][part] = color
