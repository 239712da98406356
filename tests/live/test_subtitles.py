"""Subtitles, read back by the parsers of libav."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import av
import pytest

from proassist_lit.live.subtitles import Cue, Line, make_cues, reading_time_s, to_srt, to_vtt
from proassist_lit.types import FrameOutput

WORDS = "A <b>bold</b> & brave --> word &amp; more"


def frame(index: int, text: str = "", user: str = "", fps: float = 2.0) -> FrameOutput:
    return FrameOutput(
        frame_idx=index, time_s=index / fps, speak_prob=0.5, dst_prob=None, speak=bool(text),
        dst=False, text=text, user_text=user,
    )  # fmt: skip


def read(path: Path, text: str) -> list[tuple[int, int, str]]:
    """(start, end, words) of each cue, as libav reads them, milliseconds."""
    path.write_text(text, encoding="utf-8")
    found = []
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.subtitles[0]):
            for subtitle in packet.decode():
                assert packet.pts is not None
                assert packet.time_base is not None
                start, length = (
                    round(t * packet.time_base * 1000) for t in (packet.pts, packet.duration or 0)
                )
                found.append((start, start + length, subtitle.dialogue.decode()))
    return found


def test_an_utterance_stays_until_the_next_or_until_it_is_read() -> None:
    long = "x" * 60
    cues = make_cues([frame(0), frame(4, "Hi."), frame(20, long), frame(22, "Now."), frame(23)])
    assert [(c.start_ms, c.end_ms) for c in cues] == [(2000, 3500), (10000, 11000), (11000, 12500)]
    alone = make_cues([frame(20, long)])
    assert [(c.start_ms, c.end_ms) for c in alone] == [(10000, 14500)]
    assert reading_time_s(alone[0].lines) == pytest.approx(4.5)


def test_question_and_answer_of_one_frame_are_one_cue() -> None:
    (cue,) = make_cues([frame(3, "Ten  minutes.\n", user="How\nlong?")])
    assert cue.lines == (Line("User", "How long?"), Line("Assistant", "Ten minutes."))
    (alone,) = make_cues([frame(3), frame(5, user="And now?")])
    assert alone.lines == (Line("User", "And now?"),)


def test_cues_do_not_overlap_and_take_time_at_odd_rates() -> None:
    frames = [frame(i, "Look here, this is a long sentence to read.", fps=29.97) for i in range(99)]
    cues = make_cues(frames)
    assert all(a.end_ms == b.start_ms for a, b in pairwise(cues))
    assert all(cue.start_ms < cue.end_ms for cue in cues)


def test_players_show_the_words_as_they_are(tmp_path: Path) -> None:
    frames = [frame(0, WORDS), frame(9000, "7", user="<i>1</i>"), frame(9008, "Done.")]
    cues = make_cues(frames)
    srt = read(tmp_path / "a.srt", to_srt(cues))
    vtt = read(tmp_path / "a.vtt", to_vtt(cues))
    times = [(cue.start_ms, cue.end_ms) for cue in cues]
    assert [(start, end) for start, end, _ in srt] == times
    assert [(start, end) for start, end, _ in vtt] == times
    visible = [words.replace("\u2060", "") for _, _, words in srt]
    assert visible == [WORDS, "[User] <i>1</i>\n7", "Done."]
    assert [words for _, _, words in vtt] == [WORDS, "<i>1</i>\n7", "Done."]


def test_braces_hide_no_words() -> None:
    cues = make_cues([frame(0, "{\\an8}Up {here}")])
    assert to_srt(cues).endswith("\n(\\an8)Up (here)\n")  # some players obey what is in braces
    assert to_vtt(cues).endswith("<v Assistant>{\\an8}Up {here}</v>\n")


def test_no_words_are_files_without_cues() -> None:
    assert to_srt([]) == ""
    assert to_vtt([]) == "WEBVTT\n"


def test_times_are_written_as_the_formats_want_them() -> None:
    cue = Cue(3_725_004, 3_726_000, (Line("Assistant", "Hi."),))
    assert to_srt([cue]) == "1\n01:02:05,004 --> 01:02:06,000\nHi.\n"
    assert to_vtt([cue]) == "WEBVTT\n\n01:02:05.004 --> 01:02:06.000\n<v Assistant>Hi.</v>\n"
