"""Draws what an assistant said and what it has ticked off onto the pictures of a video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from proassist_lit.errors import ConfigError
from proassist_lit.live.subtitles import USER, Line
from proassist_lit.types import DialogueState, StepState

_SMALLEST, _LARGEST = 640, 1280  # width of the picture in the drawn video, pixels
_PAPER, _INK, _SOFT = (19, 21, 23), (231, 233, 235), (160, 166, 173)
_DOING, _DONE, _USER = (86, 180, 233), (47, 197, 150), (143, 193, 227)
_SHADE = 175  # of 255, behind the words

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Layout:
    """Sizes in pixels; all even, as video codecs want them.

    Attributes:
        width: of the picture.
        height: of the picture.
        panel: width of the checklist beside it; 0 without one.
        text: height of a line of text.
    """

    width: int
    height: int
    panel: int
    text: int

    @classmethod
    def of(cls, width: int, height: int, *, checklist: bool) -> Layout:
        """For pictures of this size: small ones are enlarged, large ones reduced."""
        scale = min(max(_SMALLEST / width, 1.0), _LARGEST / width, 2 * _LARGEST / height)
        shown = _even(width * scale)
        return cls(
            width=shown,
            height=_even(height * scale),
            panel=_even(max(240, shown * 0.42)) if checklist else 0,
            text=max(15, shown // 36),
        )


class Drawer:
    """Draws the pictures of one video.

    Args:
        width: of its pictures.
        height: likewise.
        steps: (id, name) of every step of the task.
        font: a TrueType font for languages that Pillow's own cannot write.

    Raises:
        ConfigError: the font cannot be read.
    """

    def __init__(
        self, width: int, height: int, steps: Sequence[tuple[str, str]], font: Path | None = None
    ) -> None:
        self.layout = Layout.of(width, height, checklist=bool(steps))
        self._steps = tuple(steps)
        self._font = load_font(font, self.layout.text)
        self._panel = lru_cache(8)(self._draw_panel)
        self._caption = lru_cache(8)(self._draw_caption)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of what is drawn."""
        return self.layout.width + self.layout.panel, self.layout.height

    def draw(
        self, picture: NDArray[np.uint8], lines: tuple[Line, ...], state: DialogueState
    ) -> NDArray[np.uint8]:
        """Draw one picture.

        Args:
            picture: (H, W, 3) uint8.
            lines: what is being said.
            state: of every step.

        Returns:
            (H, W, 3) uint8 of ``size``.
        """
        layout = self.layout
        canvas = Image.new("RGB", self.size, _PAPER)
        enlarged = layout.width > picture.shape[1]
        shown = Image.fromarray(picture).resize(
            (layout.width, layout.height),
            Image.Resampling.NEAREST if enlarged else Image.Resampling.BILINEAR,
        )
        canvas.paste(shown, (0, 0))
        if lines:
            caption = self._caption(lines)
            canvas.paste(caption, (0, layout.height - caption.height), caption)
        if layout.panel:
            panel = self._panel(tuple(state.get(i, StepState.NOT_STARTED) for i, _ in self._steps))
            canvas.paste(panel, (layout.width, 0))
        return np.asarray(canvas)

    def _draw_caption(self, lines: tuple[Line, ...]) -> Image.Image:
        margin, height = self.layout.text // 2, round(self.layout.text * 1.35)
        rows = [
            (row, _USER if line.speaker == USER else _INK)
            for line in lines
            for row in self._wrap(line.words, self.layout.width - 2 * margin)
        ]
        rows = rows[: max((self.layout.height - 2 * margin) // height, 1)]
        image = Image.new(
            "RGBA", (self.layout.width, height * len(rows) + 2 * margin), (*_PAPER, _SHADE)
        )
        pen = ImageDraw.Draw(image)
        for i, (row, colour) in enumerate(rows):
            pen.text((margin, margin + i * height), row, fill=colour, font=self._font)
        return image

    def _draw_panel(self, states: tuple[StepState, ...]) -> Image.Image:
        layout = self.layout
        image = Image.new("RGB", (layout.panel, layout.height), _PAPER)
        pen = ImageDraw.Draw(image)
        height, box = round(layout.text * 1.7), round(layout.text * 0.8)
        fits = max((layout.height - height // 2) // height, 1)
        for row, index in enumerate(_in_sight(states, fits)):
            state, (step_id, name) = states[index], self._steps[index]
            top = height // 4 + row * height
            self._draw_box(pen, (box // 2, top + height // 8, box), state)
            colour = {StepState.COMPLETED: _SOFT, StepState.IN_PROGRESS: _DOING}.get(state, _INK)
            left = round(box * 2.2)
            words = self._cut(f"{step_id}  {name}", layout.panel - left - box // 2)
            pen.text((left, top), words, fill=colour, font=self._font)
        return image

    @staticmethod
    def _draw_box(pen: ImageDraw.ImageDraw, place: tuple[int, int, int], state: StepState) -> None:
        """An empty box, a half full one, or a tick: told apart without colours."""
        x, y, side = place
        done, doing = state is StepState.COMPLETED, state is StepState.IN_PROGRESS
        colour = _DONE if done else _DOING if doing else _SOFT
        pen.rectangle((x, y, x + side, y + side), outline=colour, width=max(side // 8, 1))
        if doing:
            pen.rectangle((x, y + side // 2, x + side, y + side), fill=colour)
        if done:
            tick = [(x + side // 5, y + side // 2), (x + side * 2 // 5, y + side * 3 // 4),
                    (x + side * 4 // 5, y + side // 4)]  # fmt: skip
            pen.line(tick, fill=colour, width=max(side // 6, 2))

    def _wrap(self, words: str, width: int) -> list[str]:
        rows = [""]
        for word in words.split():
            longer = f"{rows[-1]} {word}".strip()
            if rows[-1] and self._font.getlength(longer) > width:
                rows.append(word)
            else:
                rows[-1] = longer
        return [self._cut(row, width) for row in rows]

    def _cut(self, words: str, width: int) -> str:
        if self._font.getlength(words) <= width:
            return words
        while words and self._font.getlength(words + "...") > width:
            words = words[:-1]
        return words + "..."


def _in_sight(states: Sequence[StepState], fits: int) -> range:
    """Which steps are shown where not all can be: those around the first one not completed."""
    now = next((i for i, s in enumerate(states) if s is not StepState.COMPLETED), len(states) - 1)
    first = max(min(now - fits // 3, len(states) - fits), 0)
    return range(first, min(first + fits, len(states)))


def load_font(path: Path | None, size: int = 15) -> _Font:
    """Load a font; None for Pillow's own, which knows Latin letters only.

    Raises:
        ConfigError: it cannot be read.
    """
    if path is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(str(path), size)
    except OSError as error:
        raise ConfigError(
            f"--font {path}: cannot be read as a font ({error}); name a .ttf or .otf file."
        ) from error


def _even(size: float) -> int:
    return max(round(size / 2) * 2, 2)
