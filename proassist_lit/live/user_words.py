"""What a user says while a video is watched, as it is given on a command line."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from proassist_lit.data.timeline import event_frame
from proassist_lit.errors import ConfigError
from proassist_lit.sequence.chat import Role
from proassist_lit.sequence.script import Text

_CLOCK = re.compile(
    r"(?:(?P<hours>\d+):(?P<minutes>[0-5]\d)|(?P<minutes_alone>\d+))"
    r":(?P<seconds>[0-5]\d(?:\.\d+)?):",
    re.ASCII,
)


@dataclass(frozen=True)
class Saying:
    """What the user says, and when.

    Attributes:
        time_s: seconds from the start of the video.
        words: what they say.
    """

    time_s: float
    words: str


def parse_saying(text: str) -> Saying:
    """Read ``12.5:How long should I boil it?``; the time may be m:ss or h:mm:ss, too.

    Raises:
        ConfigError: there is no time in front, or nothing behind it.
    """
    if clock := _CLOCK.match(text):
        hours, minutes = clock["hours"] or 0, clock["minutes"] or clock["minutes_alone"]
        time_s = 3600 * float(hours) + 60 * float(minutes) + float(clock["seconds"])
        words = text[clock.end() :]
    else:
        time, _, words = text.partition(":")
        try:
            time_s = float(time)
        except ValueError:
            time_s = math.nan
    if not (math.isfinite(time_s) and time_s >= 0 and words.strip()):
        raise ConfigError(
            f"--say {text!r}: give the seconds from the start of the video, or m:ss, a colon, and "
            "the words: --say '12.5:How long should I boil it?'."
        )
    return Saying(time_s, " ".join(words.split()))


def heard_at(
    sayings: Iterable[Saying], fps: float, arrivals: Mapping[int, Iterable[Text]]
) -> dict[int, list[Text]]:
    """What is heard before which frame: ``arrivals``, and then ``sayings``.

    Words are heard before the first frame that is not earlier than they are.
    """
    out = {frame: list(texts) for frame, texts in arrivals.items()}
    for saying in sorted(sayings, key=lambda saying: saying.time_s):
        frame = event_frame(saying.time_s, fps)
        out.setdefault(frame, []).append(Text(role=Role.USER, content=saying.words))
    return out
