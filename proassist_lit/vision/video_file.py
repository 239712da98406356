"""An open video file: its pictures in the order they are shown, with their times and its faults."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from numpy.typing import NDArray

from proassist_lit.errors import VideoError

VIDEO_SUFFIXES = (
    ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts",
    ".ogv", ".ts", ".webm", ".wmv",
)  # fmt: skip
"""What is taken from folders. A file that is named itself may have any suffix."""

_TOLERANCE_S = 0.25
"""Headers round: what is off by less is no fault."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture, not yet in RGB.

    Attributes:
        time_s: when it is shown, seconds from the start of the video track.
        duration_s: how long the file says it is shown; None if it does not say.
        frame: PyAV's frame.
    """

    time_s: Fraction
    duration_s: Fraction | None
    frame: av.VideoFrame


class VideoFile:
    """An open video file; a context manager that closes it.

    Args:
        path: the file; its first video track is read.
        threads: threads that decode.

    Raises:
        VideoError: it is missing, empty, no video or sound alone.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        self.path, self._threads = path, threads
        self._faults: list[str] = []
        self._open()
        stream = self._stream
        self.rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
        # Pictures of another size, in the middle of a file, are scaled to that of its header.
        self._width, self._height = stream.codec_context.width, stream.codec_context.height
        # AVI gives packets the time of their decoding alone: the i-th such time is that of the
        # i-th picture shown. Bare streams give none at all.
        self._counts_dts = self._container.format.name == "avi"
        self._zero = None if stream.start_time is None else stream.start_time * stream.time_base
        entries = stream.index_entries  # of MP4: all packets, from the header
        self._last_entry = entries[-1].timestamp if len(entries) else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def _open(self) -> None:
        self._container = _open_container(self.path)
        try:
            self._stream = _video_track(self.path, self._container)
        except VideoError:
            self._container.close()
            raise
        self._stream.codec_context.thread_count = self._threads
        self._stream.codec_context.thread_type = "AUTO" if self._threads > 1 else "SLICE"

    @property
    def codec(self) -> str:
        """Name of the codec."""
        return str(self._stream.codec_context.name)

    @property
    def duration_s(self) -> float | None:
        """Length as the file says, seconds; None if it does not say."""
        if self._stream.duration is not None:
            return float(self._stream.duration * self._stream.time_base)
        return None if self._container.duration is None else self._container.duration / av.time_base

    @property
    def fault(self) -> str | None:
        """What was wrong with what has been read so far; None if nothing was."""
        if len(self._faults) < 2:
            return self._faults[0] if self._faults else None
        return f"{self._faults[0]}; the last of {len(self._faults)} faults: {self._faults[-1]}"

    def pictures(self, start_s: Fraction = Fraction(0)) -> Iterator[Picture]:
        """Pictures in the order they are shown, their times ascending, to the end of the file.

        The first one is the one shown at ``start_s`` or an earlier one; faults before it are
        forgotten. What cannot be decoded is left out and noted in ``fault``.
        """
        back_s = Fraction(0)
        while start_s - back_s > 0 and self._seek(start_s - back_s):
            pictures = self._decode(start_s)
            first = next(pictures, None)
            if first is not None and first.time_s <= start_s:
                yield first
                yield from pictures
                return
            back_s = back_s * 4 or Fraction(1)  # the seek went too far: formats seek by guess
        if back_s:
            self._container.close()  # not every format can be sought back to its first packet
            self._open()
        yield from self._decode(start_s)

    def times(self) -> list[tuple[Fraction, Fraction | None]]:
        """When each picture is shown, and how long if the file says so; nothing is decoded.

        Ascending, seconds from the start of the video track. What is missing is noted in
        ``fault``.
        """
        shown: list[tuple[int, int]] = []
        for packet in self._packets():
            ticks = packet.dts if packet.pts is None else packet.pts
            if packet.size and not packet.is_discard and ticks is not None:
                shown.append((ticks, packet.duration or 0))
                if packet.is_corrupt:
                    self._note("some of it is missing")
        shown.sort()
        base = self._stream.time_base
        return [
            (self._time(ticks, i), duration * base if duration else None)
            for i, (ticks, duration) in enumerate(shown)
        ]

    @property
    def zero_s(self) -> Fraction:
        """Where the file's own clock stands at the start of the video track."""
        return self._zero or Fraction(0)

    @property
    def track(self) -> int:
        """Number of the video track among all tracks of the file."""
        return int(self._stream.index)

    def to_rgb(self, picture: Picture) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB as it is to be shown: turned and mirrored as the file asks."""
        frame = picture.frame.reformat(
            width=self._width, height=self._height, format="rgb24", threads=1
        )
        return _turned(np.asarray(frame.to_ndarray(), dtype=np.uint8), picture.frame)

    def _seek(self, time_s: Fraction) -> bool:
        """Go to a key picture before ``time_s``; False where the file cannot be sought in."""
        if self._zero is None or self._counts_dts:
            return False
        offset = int((time_s + self._zero) / self._stream.time_base)
        try:
            self._container.seek(offset, stream=self._stream, backward=True)
        except av.FFmpegError:
            return False
        return True

    def _decode(self, since_s: Fraction) -> Iterator[Picture]:
        """Pictures from where the file stands; faults count from ``since_s`` on."""
        self._faults.clear()
        decode_times = list[int]()
        num_pictures, last = 0, None
        for packet in self._packets():
            if packet.is_corrupt and packet.pts is not None:
                time_s = self._time(packet.pts, 0)
                if time_s >= since_s:
                    self._note(f"some of what is shown at {float(time_s):.2f} s is missing")
            if self._counts_dts and packet.dts is not None and packet.size:
                heapq.heappush(decode_times, packet.dts)
            for frame in self._frames(packet, last, since_s):
                ticks = heapq.heappop(decode_times) if decode_times else frame.pts
                time_s = self._time(ticks, num_pictures)
                num_pictures += 1
                if last is not None and time_s <= last:
                    if last - time_s > _TOLERANCE_S:
                        self._note(f"its times go back at {float(last):.2f} s")
                        return
                    continue
                if frame.is_corrupt and time_s >= since_s:
                    self._note(f"the picture at {float(time_s):.2f} s is damaged")
                last = time_s
                duration = frame.duration * frame.time_base if frame.duration else None
                yield Picture(time_s, duration, frame)

    def _packets(self) -> Iterator[Any]:
        """Packets of the video track to the end of the file, then an empty one."""
        # Matroska has no index in its header, but the length of all tracks together.
        counts_all = "matroska" in self._container.format.name and self._container.duration
        packets = self._container.demux(*([] if counts_all else [self._stream]))
        last_dts, reached_s = 0, Fraction(0)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                self._note(f"it cannot be read beyond {float(reached_s):.2f} s ({error.strerror})")
                return
            if packet is None:
                break
            if packet.size and packet.pts is not None:
                end_s = (packet.pts + (packet.duration or 0)) * packet.time_base
                reached_s = max(reached_s, end_s)
            if packet.stream is self._stream:
                last_dts = last_dts if packet.dts is None else packet.dts
                yield packet
        lacks_packets = self._last_entry is not None and last_dts < self._last_entry
        declared_s = self._container.duration / av.time_base if counts_all else 0.0
        if lacks_packets or declared_s - reached_s > _TOLERANCE_S + 1 / self.rate:
            self._note(f"it ends at {float(reached_s):.2f} s, before its header says")

    def _frames(self, packet: Any, last: Fraction | None, since_s: Fraction) -> list[Any]:
        try:
            return list(self._stream.decode(packet))
        except av.FFmpegError as error:
            if last is None or last >= since_s:
                at = "its beginning" if last is None else f"what follows {float(last):.2f} s"
                self._note(f"{at} cannot be decoded ({error.strerror})")
            return []

    def _time(self, ticks: int | None, num_before: int) -> Fraction:
        if ticks is None:
            return num_before / self.rate
        time = Fraction(ticks * self._stream.time_base)
        if self._zero is None:
            self._zero = time
        return time - self._zero

    def _note(self, fault: str) -> None:
        self._faults.append(fault)


def _open_container(path: Path) -> Any:
    try:
        if path.is_file() and path.stat().st_size == 0:
            raise VideoError(f"{path}: is empty (0 bytes); copy or record it again.")
        # tags may be in any encoding, and are of no use here
        return av.open(str(path), metadata_errors="replace")
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise VideoError(
            f"{path}: cannot be opened ({error.strerror}); name a video file that is there."
        ) from error
    except (av.FFmpegError, OSError) as error:
        raise VideoError(
            f"{path}: is no video, or was cut off before its index was written "
            f"({error.strerror}); copy or record it again. A recorder's own tool may be able to "
            "mend it."
        ) from error


def _video_track(path: Path, container: Any) -> Any:
    """The first video track that is not the picture on a record's cover."""
    tracks = [
        track
        for track in container.streams.video
        if not track.disposition & Disposition.attached_pic
    ]
    if not tracks:
        kinds = sorted({track.type for track in container.streams})
        raise VideoError(
            f"{path}: holds no video, only {' and '.join(kinds) or 'nothing'}; name the file with "
            "the pictures."
        )
    if tracks[0].codec_context is None:
        raise VideoError(
            f"{path}: its pictures are coded in a way that PyAV does not know; convert it, say, "
            "with ffmpeg -i."
        )
    return tracks[0]


def _turned(picture: NDArray[np.uint8], frame: Any) -> NDArray[np.uint8]:
    """Apply the display matrix: the nearest of the eight ways to turn and mirror by quarters."""
    data = frame.side_data.get(SideDataType.DISPLAYMATRIX)
    if data is None:
        return picture
    # x' = a x + c y, y' = b x + d y, x to the right and y down
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(data), np.int32)[:5])
    if abs(b) + abs(c) > abs(a) + abs(d):
        picture = picture.transpose(1, 0, 2)
        a, d = c, b
    return np.ascontiguousarray(picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
