from __future__ import annotations

import re
from pathlib import Path

import pytest

from proassist_lit.data.sources.spreadsheet import VideoRows, read_spreadsheet
from proassist_lit.errors import RecordError

HEADER = "video,step,start,end,said,speaker,task,split\n"


def write(folder: Path, text: str, *, encoding: str = "utf-8") -> Path:
    path = folder / "steps.csv"
    path.write_bytes(text.encode(encoding))
    return path


def read(folder: Path, text: str) -> tuple[VideoRows, ...]:
    return read_spreadsheet(write(folder, text)).videos


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(RecordError) as raised:
        read(folder, text)
    return [line.partition("steps.csv")[2] for line in str(raised.value).splitlines()]


def test_rows_are_grouped_by_video_in_their_order(tmp_path: Path) -> None:
    one, two = read(
        tmp_path,
        HEADER + "a.mp4,Fill the kettle,1.5,4,,,make tea,train\n"
        "\n"
        "b/c.MOV,Cut,0,1,Now cut it.,,,VAL\n"
        'a.mp4,Warm the pot,3,7,"Wait, ""stir"" first",user,,\n'
        "a,,9,,Done.,Assistant,make tea,\n",
    )
    assert (one.name, one.task, one.split) == ("a", "make tea", "train")
    assert [(s.name, s.start_s, s.end_s) for s in one.steps] == [
        ("Fill the kettle", 1.5, 4.0), ("Warm the pot", 3.0, 7.0),
    ]  # fmt: skip
    assert [(s.words, s.time_s, s.by_user) for s in one.said] == [
        ('Wait, "stir" first', 3.0, True), ("Done.", 9.0, False),
    ]  # fmt: skip
    assert (two.name, two.split, two.said[0].time_s) == ("b/c", "val", 0.0)
    assert two.where.endswith("steps.csv:4")  # the empty line counts


def test_a_step_without_times_was_left_out(tmp_path: Path) -> None:
    (video,) = read(tmp_path, HEADER + "a.mp4,Cut,1,2\na.mp4,Stir,,\n")
    assert [(s.name, s.start_s) for s in video.steps] == [("Cut", 1.0), ("Stir", None)]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("video;step;start;end\r\na.mp4;Cut, then stir;0:12,5;1:02:03\r\n", "utf-8"),
        ("Video\tSTEP \tstart\tend\tnote\na.mp4\tCut, then stir\t12.5\t3723\tx\n", "utf-8-sig"),
    ],
)
def test_files_of_any_spreadsheet_program_are_read(
    text: str, encoding: str, tmp_path: Path
) -> None:
    sheet = read_spreadsheet(write(tmp_path, text, encoding=encoding))
    (step,) = sheet.videos[0].steps
    assert (step.name, step.start_s, step.end_s) == ("Cut, then stir", 12.5, 3723.0)
    assert sheet.ignored == (("note",) if "note" in text else ())


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.mp4", "a"), ("a.v2", "a.v2"), ("a.v2.mkv", "a.v2"), (r"x\a.MP4", "x/a"), ("./a", "a")],
)
def test_videos_are_named_as_their_features_will_be(
    name: str, expected: str, tmp_path: Path
) -> None:
    (video,) = read(tmp_path, HEADER + f"{name},Cut,0,1\n")
    assert video.name == expected


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (",Cut,0,1", "names no video"),
        ("a,,0,1", "has neither a step nor words"),
        ("a,Cut,0,", "has only one of the two times"),
        ("a,Cut,5,4", "ends at 4 s, not after its start at 5 s; swap them"),
        ("a,Cut,5,5", "ends at 5 s, not after its start at 5 s"),
        ("a,17,5,6", "the step is '17'; name it in words"),
        ("a,Cut,soon,9", "'start' is 'soon'; write seconds .* or minutes and seconds"),
        ("a,Cut,-1,9", "'start' is '-1'"),
        ("a,Cut,0,1:75", "'end' is '1:75'; behind a colon there are at most 59"),
        ("a,Cut,0,1:60:00", "'end' is '1:60:00'; behind a colon"),
        ("a,Cut,1,nan", "'end' is 'nan'"),
        ("a,Cut,1,2,Hm,cook", "the speaker is 'cook'; write assistant or user"),
        ("a,Cut,,,Hm", "has words without a time; write when they were said into 'start'"),
        ("a,Cut,1,2,,,,dev", "the split is 'dev'; write train, val, test, or nothing"),
        ("b,Cut,1,2,,,make soup", "the task of video 'b' is 'make soup', but .* 'make tea'"),
        ("a,Cut,1,2,Wait, stir,user,,", "has 9 cells, but the header 8; .* between quotes"),
    ],
)
def test_fault_names_file_line_and_remedy(row: str, said: str, tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, HEADER + f"b,Stir,0,1,,,make tea\n{row}\n")
    assert re.match(f":3: {said}", fault), fault


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    found = faults(tmp_path, HEADER + "a,Cut,1,0\n,Cut,1,2\nb,Cut,x,y\n")
    assert [fault.partition(": ")[0] for fault in found] == [":2", ":3", ":4", ":4"]


def test_words_alone_make_no_task(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, HEADER + "a,Cut,0,1\nb,,1,,Hello\n")
    assert fault.startswith(":3: video 'b' has no steps, only words")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"steps\.csv:1: has no column 'video' and no 'step'.*but it is nothing"),
        ("video,steps,start,end\n", r":1: has no column 'step'; .* Is 'steps' meant\?"),
        ("video,step,start,end,Step\n", r":1: names the column 'step' twice"),
        (HEADER, r"steps\.csv: holds no rows below its header"),
        (HEADER + 'a,"Cut,0,1\n', r"steps\.csv:2: is no row of a CSV file"),
    ],
)
def test_a_file_that_is_no_such_spreadsheet_is_refused(
    text: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(RecordError, match=said):
        read(tmp_path, text)


def test_a_workbook_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "steps.xlsx").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(RecordError, match=r"steps\.xlsx: is not UTF-8 .*save .* as CSV"):
        read_spreadsheet(tmp_path / "steps.xlsx")
    with pytest.raises(RecordError, match=r"none\.csv: cannot be read: No such file"):
        read_spreadsheet(tmp_path / "none.csv")
