import copy
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from proassist_lit.data.sources.captaincook4d import read_captaincook4d
from proassist_lit.data.sources.captaincook4d_descriptions import parse_description
from proassist_lit.data.timeline import ActivityKind, Timeline
from proassist_lit.errors import RecordError

DATA_DIR = (
    Path(os.environ.get("PROASSIST_DATA_DIR", Path(__file__).parents[3] / "shared/data"))
    / "captaincook4d"
)
STEPS = "annotation_json/complete_step_annotations.json"
ERRORS = "annotation_json/error_annotations.json"
SPLIT = "data_splits/recordings_data_split_combined.json"
VIDEOS = "metadata/video_information.csv"
GRAPH = "task_graphs/hotsoup.json"

PEEL, CUT, STIR = "Peel-Peel 1 carrot", "Cut -Cut the carrot with a knife", "Stir-Stir the soup"
SALT = "Add-1/2 tsp salt to the pan"

# (step_id, description, start, end, errors)
Row = tuple[int, str, float, float, list[tuple[str, str]]]
RECORDINGS: dict[str, list[Row]] = {
    "1_1": [
        (7, PEEL, 2.0, 10.0, []),
        (3, CUT, 12.0, 22.0, [("Technique Error", "Cut in uneven pieces.")]),
        (9, STIR, 24.0, 28.0, []),
        (5, SALT, 26.0, 30.0, []),
        (9, STIR, 40.0, 50.0, [("Timing Error", "stir too long")]),
    ],
    "1_2": [
        (3, CUT, 1.0, 11.0, [("Order Error", "Step performed before peeling"), ("Other", "odd")]),
        (7, PEEL, 13.0, 17.0, []),
        (5, SALT, -1.0, -1.0, [("Missing Step", "Skipped this step")]),
        (9, STIR, 20.0, 22.0, []),
        (9, STIR, 24.0, 26.0, []),
        (9, STIR, 28.0, 30.0, []),
    ],
}
NODES = {"0": "START", "1": STIR, "2": CUT, "3": PEEL, "4": STIR, "10": SALT, "11": "END"}
EDGES = [[0, 3], [3, 2], [2, 1], [1, 10], [10, 4], [4, 11]]


def files() -> dict:
    """Content of the authors' files, as parsed JSON (text for the table)."""
    steps, errors = {}, []
    for name, rows in RECORDINGS.items():
        keys = ("step_id", "description", "start_time", "end_time")
        plain = [dict(zip(keys, row[:4], strict=True)) for row in rows]
        steps[name] = {
            "recording_id": name,
            "activity_id": 1,
            "activity_name": "Hot Soup",
            "person_id": 3,
            "steps": [{**p, "has_errors": bool(r[4])} for p, r in zip(plain, rows, strict=True)],
        }
        annotated = []
        for p, row in zip(plain, rows, strict=True):
            listed = [{"tag": tag, "description": text} for tag, text in row[4]]
            annotated.append({**p, "errors": listed} if listed else p)
        errors.append({"recording_id": name, "is_error": True, "step_annotations": annotated})
    return {
        STEPS: steps,
        ERRORS: errors,
        SPLIT: {"train": ["1_1"], "val": ["1_2"]},
        VIDEOS: "recording_id,environment_id,duration(min),duration(sec)\n1_1,2,1.00,60.0\n",
        GRAPH: {"steps": NODES, "edges": EDGES},
    }


def write(root: Path, content: dict) -> Path:
    for name, value in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(value if isinstance(value, str) else json.dumps(value))
    return root


def test_steps_follow_the_task_graph(tmp_path: Path) -> None:
    made = read_captaincook4d(write(tmp_path, files()))
    assert {split: [t.video_uid for t in v] for split, v in made.items()} == {
        "train": ["1_1"],
        "val": ["1_2"],
    }
    one, two = made["train"][0], made["val"][0]
    assert [(s.id, s.name) for s in one.steps] == [
        ("S1", "peel 1 carrot"),
        ("S2", "cut the carrot with a knife"),
        ("S3", "stir the soup"),
        ("S4", "add 1/2 tsp salt to the pan"),
        ("S5", "stir the soup"),
    ]
    assert [(s.id, s.name) for s in two.steps] == [(s.id, s.name) for s in one.steps]
    assert [(s.start_s, s.end_s) for s in one.steps] == [
        (2.0, 10.0),
        (12.0, 22.0),
        (24.0, 28.0),
        (26.0, 30.0),
        (40.0, 50.0),
    ]
    assert (one.dataset, one.task) == ("captaincook4d", "make hot soup")
    assert one.steps[1].verb == "cut"
    assert one.steps[1].item == "carrot"
    assert one.steps[1].tool == "knife"
    assert one.metadata["person_id"] == 3


def test_skipped_and_repeated_steps(tmp_path: Path) -> None:
    two = read_captaincook4d(write(tmp_path, files()))["val"][0]
    salt, first, second = two.steps[3], two.steps[2], two.steps[4]
    assert salt.skipped
    assert salt.mistakes == ()
    assert (first.start_s, first.end_s) == (20.0, 22.0)
    assert (second.start_s, second.end_s) == (24.0, 30.0)  # stirred three times, planned twice
    stirs = [a for a in two.activities if a.step_id == "S5"]
    assert [(a.start_s, a.end_s, a.progress) for a in stirs] == [
        (24.0, 26.0, (0.0, 0.5)),
        (28.0, 30.0, (0.5, 1.0)),
    ]
    assert not [a for a in two.activities if a.step_id == "S4"]


def test_duration_is_the_table_s_or_follows_the_last_step(tmp_path: Path) -> None:
    content = files()
    made = read_captaincook4d(write(tmp_path, content))
    assert made["train"][0].duration_s == 60.0
    assert made["val"][0].duration_s == 35.0
    content[VIDEOS] += "1_2,2,0.5,29.99\n"  # the table rounds: the last step ends at 30
    assert read_captaincook4d(write(tmp_path, content))["val"][0].duration_s == 30.0


def test_mistakes_have_time_words_and_correction(tmp_path: Path) -> None:
    made = read_captaincook4d(write(tmp_path, files()))
    one, two = made["train"][0], made["val"][0]
    (cut,) = one.steps[1].mistakes
    assert (cut.time_s, cut.kind) == (17.0, "Technique Error")
    assert cut.description == "a technique error: cut in uneven pieces"
    assert cut.correction == "cut the carrot with a knife"
    assert cut.keywords == ("cut", "carrot")
    (stir,) = one.steps[4].mistakes
    assert (stir.time_s, stir.kind) == (49.0, "Timing Error")
    order, other = two.steps[1].mistakes
    assert (order.time_s, order.kind) == (2.0, "Order Error")
    assert order.description == "an order error: step performed before peeling"
    assert order.correction == "first peel 1 carrot"  # what the graph wants before
    assert order.keywords == ("peel", "carrot")
    assert (other.time_s, other.description) == (6.0, "a mistake: odd")


@pytest.mark.parametrize(
    ("text", "correction"),
    [
        ("Step performed before adding salt", "finish adding salt before you peel 1 carrot"),
        ("step performed after cutting.", "peel 1 carrot before cutting"),
        ("wrong order", "peel 1 carrot"),
    ],
)
def test_order_error_without_a_missing_step_says_it_in_words(
    text: str, correction: str, tmp_path: Path
) -> None:
    content = files()
    row = content[ERRORS][0]["step_annotations"][0]
    row["errors"] = [{"tag": "Order Error", "description": text}]
    (mistake,) = read_captaincook4d(write(tmp_path, content))["train"][0].steps[0].mistakes
    assert mistake.correction == correction
    assert mistake.keywords == ("peel", "carrot")


def test_activities_are_work_interrupted_by_mistakes(tmp_path: Path) -> None:
    made = read_captaincook4d(write(tmp_path, files()))
    work, mistake = ActivityKind.WORK, ActivityKind.MISTAKE

    def of(timeline: Timeline, step_id: str) -> list:
        acts = [a for a in timeline.activities if a.step_id == step_id]
        return [(a.kind, a.start_s, a.end_s, *(round(p, 6) for p in a.progress)) for a in acts]

    one, two = made["train"][0], made["val"][0]
    assert of(one, "S1") == [(work, 2.0, 10.0, 0.0, 1.0)]
    assert of(one, "S2") == [
        (work, 12.0, 17.0, 0.0, round(5 / 7.5, 6)),
        (mistake, 17.0, 19.5, round(5 / 7.5, 6), round(5 / 7.5, 6)),
        (work, 19.5, 22.0, round(5 / 7.5, 6), 1.0),
    ]
    assert of(one, "S5") == [(work, 40.0, 49.0, 0.0, 1.0), (mistake, 49.0, 50.0, 1.0, 1.0)]
    assert [k for k, *_ in of(two, "S2")] == [work, mistake, work, mistake, work]
    starts = [a.start_s for a in one.activities]
    assert starts == sorted(starts)
    assert {a.tool for a in one.activities if a.step_id == "S2"} == {"knife"}
    assert all(a.item == "carrot" for a in one.activities if a.step_id in ("S1", "S2"))


def test_a_row_with_the_wrong_step_id_or_an_odd_description_is_placed(tmp_path: Path) -> None:
    content = files()
    for rows in (content[STEPS]["1_2"]["steps"], content[ERRORS][1]["step_annotations"]):
        rows[1]["step_id"] = 3  # the description says peel, the number says cut
        rows[3]["description"] = "Stir-Stir it for long"  # known by its number only
        rows.append({"step_id": 77, "description": "Eat-Eat", "start_time": 31, "end_time": 32})
    two = read_captaincook4d(write(tmp_path, content))["val"][0]
    assert two.steps[0].start_s == 13.0
    assert (two.steps[2].start_s, two.steps[2].end_s) == (20.0, 22.0)
    assert [(s.id, s.name, s.start_s) for s in two.steps[5:]] == [("S6", "eat", 31.0)]


def test_without_a_graph_the_first_recording_is_the_plan(tmp_path: Path) -> None:
    content = files()
    del content[GRAPH]
    made = read_captaincook4d(write(tmp_path, content))
    names = ["peel", "cut", "stir", "add", "stir"]
    assert [s.verb for s in made["train"][0].steps] == names
    assert [s.verb for s in made["val"][0].steps] == names


def test_free_steps_of_the_graph_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    content = files()
    content[GRAPH]["edges"] = [[0, 3], [3, 2]]  # peel before cut; 1, 4 and 10 (salt) are free
    one = read_captaincook4d(write(tmp_path, content))["train"][0]
    assert [s.verb for s in one.steps] == ["stir", "peel", "cut", "stir", "add"]


def test_what_a_step_needs_is_followed_through_the_graph(tmp_path: Path) -> None:
    content = files()
    for rows in (content[STEPS]["1_2"]["steps"], content[ERRORS][1]["step_annotations"]):
        rows[3].update(start_time=0.5, end_time=0.9)  # stirred first: nothing is peeled or cut
    error = {"tag": "Order Error", "description": "too early"}
    content[ERRORS][1]["step_annotations"][3]["errors"] = [error]
    (mistake,) = read_captaincook4d(write(tmp_path, content))["val"][0].steps[2].mistakes
    assert mistake.correction == "first peel 1 carrot"  # two edges away, and before the cutting


def test_a_test_split_is_read_and_seeds_are_stable(tmp_path: Path) -> None:
    content = files()
    content[SPLIT] = {"test": ["1_2", "1_1"]}
    made = read_captaincook4d(write(tmp_path, content))["test"]
    assert [t.video_uid for t in made] == ["1_2", "1_1"]
    # Python's own hash() would give other numbers in every process
    assert [t.scene_seed for t in made] == [3949091048, 739427732]


@pytest.mark.parametrize(
    ("text", "name", "verb", "item", "tool"),
    [
        ("Coat -Coat a 6-oz. ramekin cup with spray", None, "coat", "ramekin cup", ""),
        ("Add-1/2 tsp salt to the pan", "add 1/2 tsp salt to the pan", "add", "salt", ""),
        ("Add-Add 2 cloves of minced garlic to the pan", None, "add", "garlic", ""),
        ("Cut -Cut the English muffin in two with a knife", None, "cut", "English muffin", "knife"),
        ("stir-then stir the bowl", "stir the bowl", "stir", "bowl", ""),
        ("Top -Top cup with 1 tablespoon of salsa", None, "top", "cup", ""),
        ("Mix-Mix the contents of the mug. (Lumps are ok.)", "mix the contents of the mug", "mix",
         "mug", ""),
        ("Scoop-While it cools, wait. Scoop 4 spoonfuls of frosting into a bag",
         "scoop 4 spoonfuls of frosting into a bag", "scoop", "frosting", ""),
        ("Microwave -Continue to Microwave for 15-30 more seconds until the egg is set",
         "continue to microwave for 15-30 more seconds until the egg is set", "microwave", "egg",
         ""),
        ("cut-Use scissors to cut one corner from the bag", None, "cut", "bag", "scissors"),
        ("add-Measure 1/8 teaspoon of salt and add it to the mug", None, "add", "salt", ""),
        ("drain-Let the coffee drain completely into the mug", None, "drain", "coffee", ""),
        ("Measure and add-2 tbsp water to the bowl", "measure and add 2 tbsp water to the bowl",
         "measure", "water", ""),
        ("Spiralize-Spiralize 1 medium zucchini using a spiralizer", None, "spiralize", "zucchini",
         "spiralizer"),
        ("stir-stir gently with a wooden spoon so the egg that sets", None, "stir", "egg",
         "wooden spoon"),
        ("Microwave-Microwave for 1 more minute", None, "microwave", "microwave", ""),
        ("no dash here", "no dash here", "no", "dash here", ""),
    ],
)  # fmt: skip
def test_parse_description(text: str, name: str | None, verb: str, item: str, tool: str) -> None:
    made = parse_description(text)
    sentence = text.partition("-")[2]
    assert made.name == (name or sentence[0].lower() + sentence[1:])
    assert (made.verb, made.item, made.tool) == (verb, item, tool)


@settings(max_examples=200, deadline=None, database=None)
@given(st.text(min_size=1).filter(str.strip) | st.text("aA -.,()'1/\n\u0130s", min_size=1))
@example("continue-x")
@example("-")
@example("()-()")
def test_verb_and_item_are_words_of_the_name(text: str) -> None:
    if text.strip():
        made = parse_description(text)
        assert made.verb in made.name
        assert made.item in made.name
        assert made.tool in made.name
        assert made.verb
        assert made.item
        assert made.name.strip()


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


@pytest.mark.skipif(not DATA_DIR.is_dir(), reason=f"no CaptainCook4D annotations in {DATA_DIR}")
def test_all_real_recordings_make_sound_timelines() -> None:
    made = read_captaincook4d(DATA_DIR)
    timelines = [t for split in made.values() for t in split]
    assert {split: len(v) for split, v in made.items()} == {"train": 213, "val": 62}
    assert len({t.video_uid for t in timelines}) == 275
    assert len({t.scene_seed for t in timelines}) == 275
    steps_of: dict[str, set] = {}
    for timeline in timelines:
        steps_of.setdefault(timeline.task, set()).add(tuple((s.id, s.name) for s in timeline.steps))
        assert Timeline.from_json(timeline.to_json()) == timeline
        assert [s.id for s in timeline.steps] == [f"S{i + 1}" for i in range(len(timeline.steps))]
        starts = [a.start_s for a in timeline.activities]
        assert starts == sorted(starts)
        for step in timeline.steps:
            acts = [a for a in timeline.activities if a.step_id == step.id]
            assert step.verb in step.name
            assert step.item in step.name
            if step.start_s is None or step.end_s is None:
                assert acts == []
                assert step.mistakes == ()
                continue
            assert acts[0].start_s == step.start_s
            assert max(a.end_s for a in acts) == step.end_s <= timeline.duration_s
            assert (acts[0].progress[0], acts[-1].progress[1]) == (0.0, 1.0)
            for activity, later in zip(acts, [*acts[1:], None], strict=True):
                assert activity.start_s < activity.end_s
                if later is not None:
                    assert activity.progress[1] == later.progress[0]
            for mistake in step.mistakes:
                assert step.start_s < mistake.time_s < step.end_s
                assert all(word in mistake.correction for word in mistake.keywords)
                assert any(
                    a.kind is ActivityKind.MISTAKE and a.start_s <= mistake.time_s < a.end_s
                    for a in acts
                )
    assert len(steps_of) == 24
    assert all(len(plans) == 1 for plans in steps_of.values())  # the plan is the recipe's
    all_steps = [s for t in timelines for s in t.steps]
    named = sum(s.item != s.verb for s in all_steps)
    assert named / len(all_steps) > 0.95
    assert sum(len(s.mistakes) for s in all_steps) == 1653 - 212  # all but those of skipped steps
