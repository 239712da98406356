"""What is wrong with the files is told with the file and the recording."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proassist_lit.data.sources.captaincook4d import read_captaincook4d
from proassist_lit.data.timeline import Timeline
from proassist_lit.errors import RecordError
from tests.data.captaincook4d_files import ERRORS, GRAPH, SPLIT, STEPS, VIDEOS, files, write


def change(path: list, value: object):
    """A function that sets the place ``path`` of the files to ``value``; ``...`` removes it."""

    def apply(content: dict) -> None:
        place = content
        for key in path[:-1]:
            place = place[key]
        if value is ...:
            del place[path[-1]]
        else:
            place[path[-1]] = value

    return apply


ROW = [STEPS, "1_1", "steps", 0]
FAULTS = {
    "no steps file": (change([STEPS], ...), r"complete_step_annotations\.json: cannot be read: No"),
    "no errors file": (change([ERRORS], ...),
        r"error_annotations\.json: cannot be read: .*Put the"),
    "no split file": (change([SPLIT], ...), r"split_combined\.json: cannot be read: No such file"),
    "no table": (change([VIDEOS], ...), r"video_information\.csv: cannot be read: No such file"),
    "broken JSON": (change([STEPS], '{"1_1": '),
        r"complete_step_annotations\.json: not valid JSON"),
    "broken graph": (change([GRAPH], "{"), r"hotsoup\.json: not valid JSON"),
    "NaN": (change([STEPS], '{"1_1": NaN}'), r"not valid JSON: NaN is not a JSON number"),
    "split no object": (change([SPLIT], ["1_1"]), r"split_combined\.json: expected a JSON object"),
    "split no names": (change([SPLIT, "val"], [3]),
        r"split_combined\.json: 'val' must be a list of"),
    "unknown split": (change([SPLIT, "validation"], []),
        r"split_combined\.json: there is no split 'validation'; call it train, val or test"),
    "twice in a split": (change([SPLIT, "val"], ["1_1"]),
        r"recording '1_1' is listed 2 times; keep"),
    "no steps of it": (change([STEPS, "1_1"], ...),
        r"'1_1' of split 'train' is not in .*steps?_anno"
                       r".*; add its annotation, or take it out"),
    "no errors of it": (change([ERRORS, 1], ...),
        r"'1_2' of split 'val' is not in .*error_annotatio"),
    "times reversed": (change([*ROW, "end_time"], 1.0),
        r"json: recording '1_1': step 0: ends at 1\.0"
                       r" s, before its start at 2\.0 s; swap"),
    "half skipped": (change([*ROW, "end_time"], -1),
        r"recording '1_1': step 0: 'end_time' must be a"),
    "time a text": (change([*ROW, "start_time"], "2"),
        r"'1_1': step 0: 'start_time' must be a numbe"),
    "no description": (change([*ROW, "description"], ...),
        r"'1_1': step 0: the key 'description' is"),
    "no step id": (change([*ROW, "step_id"], None), r"'1_1': step 0: 'step_id' must be an integer"),
    "no steps at all": (change([STEPS, "1_1", "steps"], []), r"'1_1': has no steps; annotate"),
    "recording no object": (change([STEPS, "1_1"], 4), r"recording '1_1': expected a JSON object"),
    "no recipe": (change([STEPS, "1_1", "activity_name"], ...),
        r"'1_1': the key 'activity_name' is"),
    "errors no list": (change([ERRORS], {}), r"error_annotations\.json: expected a list of record"),
    "error entry twice": (change([ERRORS, 1, "recording_id"], "1_1"),
        r"'1_1' was given before; keep"),
    "error of no shape": (change([ERRORS, 0, "step_annotations", 1, "errors"], "bad"),
                          r"recording '1_1': step 1: 'errors' must be a list, got 'bad'"),
    "error without tag": (change([ERRORS, 0, "step_annotations", 1, "errors", 0, "tag"], ...),
                          r"recording '1_1': step 1: error: the key 'tag' is missing"),
    "files disagree": (change([ERRORS, 0, "step_annotations", 1, "start_time"], 12.5),
                       r"error_annotations\.json: recording '1_1': its steps, or .* same"),
    "table without header": (change([VIDEOS], "1_1,2,60\n1_2,2,60\n"),
        r"csv:2: needs 'recording_id'"),
    "table without number": (change([VIDEOS], "recording_id,duration(sec)\n1_1,long\n"),
                             r"video_information\.csv:2: needs .* got '1_1' and 'long'\. Correct"),
    "recording too short": (change([VIDEOS], "recording_id,duration(sec)\n1_1,40\n"),
        r"'1_1': a step"
                            r" ends at 50\.0 s, after the end of the recording at 40\.0 s"),
    "graph in a circle": (change([GRAPH, "edges"], [[1, 2], [2, 1]]),
        r"hotsoup\.json: its edges run"),
    "edge to nowhere": (change([GRAPH, "edges"], [[1, 99]]),
        r"hotsoup\.json: the edge \[1, 99\] must"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_name_the_file_and_the_recording(fault: str, tmp_path: Path) -> None:
    apply, message = FAULTS[fault]
    content = files()
    apply(content)
    with pytest.raises(RecordError, match=message):
        read_captaincook4d(write(tmp_path, content))


def _places(value: object, path: tuple = ()) -> list[tuple]:
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, item in inner:
        found.append((*path, key))
        if isinstance(item, (dict, list)):
            found += _places(item, (*path, key))
    return found


VALUES = st.sampled_from(
    [..., None, True, -1, 0, 3, 1e9, 2**70, "", " ", "x", "1_1", [], [[]], {}, {"a": 1}, [1, 2]]
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(data=st.data())
def test_any_mutation_is_read_or_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = copy.deepcopy(files())
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(_places(content)))
        value = copy.deepcopy(data.draw(VALUES))  # shared, it could end up inside itself
        change(list(place), value)(content)
    root = tmp_path_factory.mktemp("mutated", numbered=True)
    message = ""
    try:
        made = read_captaincook4d(write(root, {k: v for k, v in content.items() if "/" in k}))
    except RecordError as fault:
        message = str(fault)
    if message:
        assert message.startswith(str(root)) or message.startswith("timeline ")
    else:
        assert all(isinstance(t, Timeline) for timelines in made.values() for t in timelines)
