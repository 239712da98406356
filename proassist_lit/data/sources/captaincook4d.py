"""CaptainCook4D: real cooking recordings with their steps and mistakes, as timelines.

The annotations are read as their authors publish them (arXiv:2312.14556). What they leave open is
settled by these rules:

- *Plan.* The steps of a recipe are the nodes of its task graph in topological order, of the free
  ones the smallest node first; so ``S3`` is the same step in every recording of a recipe. Without
  a graph the first recording of the recipe gives the plan, in its order. Steps that a recording
  has beyond the plan follow at its end.
- *Which step.* A row belongs to the plan's step of the same description, or, where there is none,
  of the description that its ``step_id`` mostly has in the recipe. Where a recipe repeats a step,
  the k-th performance is the k-th of them. A step done more often than planned lasts from its
  first start to its last end. A step that was not performed at all is skipped.
- *When a mistake shows.* The annotations time steps, not mistakes: one is taken to show halfway
  through its step, a wrong order near the step's beginning, wrong timing near its end.
- *Activities.* Each performance is work, interrupted by a mistake for a quarter of its time.
  Steps overlap in real kitchens; so do the activities.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proassist_lit.data.record_checks import Fields, load_json, show
from proassist_lit.data.timeline import Activity, ActivityKind, Mistake, Step, Timeline
from proassist_lit.errors import RecordError

STEPS_FILE = "annotation_json/complete_step_annotations.json"
ERRORS_FILE = "annotation_json/error_annotations.json"
SPLIT_FILE = "data_splits/recordings_data_split_combined.json"
VIDEO_FILE = "metadata/video_information.csv"
GRAPH_DIR = "task_graphs"

SHOWS_AT = {"Order Error": 0.1, "Timing Error": 0.9}
"""Share of a step after which a mistake of a kind can be seen; halfway for all others."""

_MISTAKE_SHARE = 0.25  # of the performance, the stretch in which the mistake is seen
_TAIL_S = 5.0  # after the last step, where the length of a recording is not known
_SECONDS = re.compile(r"\d{1,9}(\.\d*)?", re.ASCII)
_ROUNDING_S = 1.0  # steps may end this much after the recording, whose length is rounded


def read_captaincook4d(root: Path) -> dict[str, list[Timeline]]:
    """Read the annotations below ``root``.

    Args:
        root: folder of the authors' files: ``annotation_json``, ``data_splits``, ``metadata`` and,
            if there, ``task_graphs``.

    Returns:
        Timelines of each split, as the split file names and orders them.

    Raises:
        RecordError: a file is missing or not JSON, a recording of a split is not annotated, its
            times are reversed, or anything has an unknown shape; names the file and recording.
    """
    splits = _read_splits(root / SPLIT_FILE)
    recordings = _read_recordings(root / STEPS_FILE)
    errors = _read_errors(root / ERRORS_FILE)
    durations_s = _read_durations(root / VIDEO_FILE)
    plans: dict[str, _Plan] = {}
    made: dict[str, list[Timeline]] = {}
    for split, names in splits.items():
        made[split] = []
        for name in names:
            for known, file in ((recordings, STEPS_FILE), (errors, ERRORS_FILE)):
                if name not in known:
                    raise RecordError(
                        f"{root / SPLIT_FILE}: recording {name!r} of split {split!r} is not in "
                        f"{file}; add its annotation, or take it out of the split."
                    )
            recording = recordings[name]
            recipe = recording.recipe
            if recipe not in plans:
                same = [r for r in recordings.values() if r.recipe == recipe]
                plans[recipe] = _make_plan(root / GRAPH_DIR / f"{_slug(recipe)}.json", same)
            _join_errors(recording, errors[name], f"{root / ERRORS_FILE}: recording {name!r}")
            made[split].append(_make_timeline(recording, plans[recipe], durations_s.get(name)))
    return made


# -- descriptions ------------------------------------------------------------------------------


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TOOLS = _words(
    "knife spoon fork spatula towel tongs spiralizer toothpick toothpicks floss scissors blender "
    "peeler grater whisk"
)
_ENDS_NAME = _words(  # a noun phrase is over at these
    "in on to into onto over with from for until at of inside about around under through between "
    "by as up out off without using and or then so that which is are be it its it's them when "
    "while once if just dry aside well each one's has have begin begins again also halfway not no "
    "longer more further often stirring mixing after before throughout sit soften start melts "
    "thickens turns rises becomes drain down cut-side"
)
_NO_NAME = _words(  # words before the noun that do not name the thing
    "a an the one two three all some any other another another's small large medium big ripe "
    "fresh frozen thick thin short heaped generous excess low high hot cold cool sweet smooth non "
    "number same whole sized both everything create combine prevent allow set"
)
_COUNTS = _words("a an one two three")
_PORTIONS = _words(  # what a quantity is counted in: the thing comes after it, or after "of"
    "cup cups tbsp tablespoon tablespoons tsp teaspoon teaspoons ounce ounces oz inch clove cloves "
    "slice slices piece pieces can pinch drizzle knob block spoonfuls dollops amount second "
    "seconds sec min mins minute minutes contents rest ends end top bottom corner sides"
)
_QUANTITY = re.compile(r"[\d./-]+[\w./-]*")


@dataclass(frozen=True)
class Description:
    """What an annotator's ``Verb-Whole sentence`` says.

    Attributes:
        name: the sentence in the imperative: ``cut the English muffin into two pieces``.
        verb: its main verb; a word of ``name``.
        item: what is worked on, one or two words of ``name``; the verb if nothing is named.
        tool: what it is done with; empty if not said.
    """

    name: str
    verb: str
    item: str
    tool: str = ""


def parse_description(text: str) -> Description:
    """Read ``Cut -Cut the English muffin into two pieces with a knife``.

    Remarks in brackets and sentences without the verb are left out; the verb is put before a
    sentence that lacks it. The item is found by rule, not by a parser: the words after the verb,
    without quantities and adjectives, up to a preposition.
    """
    lead, dash, sentence = text.partition("-")
    lead = " ".join(lead.split()).lower() if dash else ""
    sentence = re.sub(r"\([^)]*\)", " ", sentence if dash else text)
    sentence = " ".join(re.sub(r"^\s*then\s", "", sentence).split())
    sentence = re.sub(r" (?=[.,])", "", sentence).rstrip(" .") or lead or text.strip()
    lead = lead or sentence.split()[0].lower()
    word = next((w for w in lead.split() if w != "continue"), lead)
    has_verb = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)
    sentences = re.split(r"\. (?=[A-Z])", sentence)
    name = next((s for s in sentences if has_verb.search(s)), "") or f"{lead} {sentences[0]}"
    found = has_verb.search(name)
    assert found is not None
    verb = found.group().lower()
    before, after = name[: found.start()], name[found.end() :]
    name = f"{before[:1].lower()}{before[1:]}{verb}{after}"
    tool = _tool(name)
    after = re.sub(r"^ (?:and|or) \w+", "", after)  # measure and add, cut or tear
    if tool:
        after = after.replace(tool, ";")
    earlier = before.partition(" ")[2]
    is_later = re.match(r" it\b", after) or re.match(r"(?:let|allow)\b", before, re.IGNORECASE)
    places = (earlier, after) if is_later else (after, earlier)  # "let the coffee drain into .."
    item = _thing(places[0]) or _thing(places[1]) or verb
    return Description(name=name, verb=verb, item=item, tool=tool)


def _thing(text: str) -> str:
    """The first one or two words that name a thing, as they stand in ``text``; empty if none."""
    words: list[str] = []
    counted = False  # a quantity stands before: the next word may be what it is counted in
    tokens = re.findall(r"[\w./'-]+|[^\w\s]", text)
    for i, token in enumerate(tokens):
        following = tokens[i + 1] if i + 1 < len(tokens) else ""
        word = token.lower().strip(".")
        is_quantity = bool(_QUANTITY.fullmatch(word)) or word in _COUNTS
        is_portion = word in _PORTIONS and (
            counted or following.lower() == "of" or following.lower() in _PORTIONS
        )
        describes = word not in ("seed", "jelly") and re.fullmatch(r"\w{2,}(?<!e)ed|\w+ly", word)
        names = re.match(r"[^\W\d_]", token) and word not in _ENDS_NAME | _NO_NAME
        if names and not (is_quantity or is_portion or describes):
            words.append(token)
            counted = False
            if token.endswith(("'s", ".")):
                break
        elif words:
            break
        else:
            counted = counted or is_quantity
    return " ".join(words[-2:]).removesuffix("'s").removesuffix(".")


def _tool(name: str) -> str:
    for phrase in re.findall(r"\b(?:with|using|use)\s+([^,;.]+)", name, re.IGNORECASE):
        thing = _thing(phrase)
        if thing and thing.split()[-1] in _TOOLS:
            return thing
    return ""


# -- the files ---------------------------------------------------------------------------------


@dataclass
class _Row:
    """One performance of a step, or the note that it was skipped (no times)."""

    step_id: int
    description: str
    start_s: float | None
    end_s: float | None
    errors: list[tuple[str, str]] = field(default_factory=list)  # (tag, description)

    @property
    def key(self) -> tuple[int, str, float | None, float | None]:
        return self.step_id, self.description, self.start_s, self.end_s


@dataclass
class _Recording:
    name: str
    where: str
    recipe: str
    rows: list[_Row]
    metadata: dict[str, Any]


def _load(path: Path) -> Any:
    return load_json(_read_bytes(path), str(path))


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be read: {error.strerror or error}. Put the authors' annotation files "
            "there, in their own layout."
        ) from error


def _read_splits(path: Path) -> dict[str, list[str]]:
    faults: list[RecordError] = []
    document = _load(path)
    fields = Fields(document, str(path), faults)
    splits = {split: list(fields.words(split)) for split in fields.rest().copy()}
    count = Counter(name for names in splits.values() for name in names)
    for name in (name for name, num in count.items() if num > 1):
        fields.fault(f"recording {name!r} is listed {count[name]} times; keep one place for it")
    _raise_first(faults)
    return splits


def _read_recordings(path: Path) -> dict[str, _Recording]:
    faults: list[RecordError] = []
    recordings = {}
    document = Fields(_load(path), str(path), faults)
    for name, raw in document.rest().items():
        fields = Fields(raw, f"{path}: recording {name!r}", faults)
        recipe = fields.text("activity_name")
        rows = [_row(fields.inner(r, f"step {i}")) for i, r in enumerate(fields.items("steps"))]
        if not rows and not faults:
            fields.fault("has no steps; annotate them, or take the recording out")
        metadata = {"recipe": recipe, **fields.rest()}
        recordings[name] = _Recording(name, fields.where, recipe, rows, metadata)
        _raise_first(faults)
    _raise_first(faults)
    return recordings


def _row(fields: Fields) -> _Row:
    """One step as both annotation files give it; times of -1 say that it was skipped."""
    step_id, description = fields.index("step_id"), fields.text("description")
    if fields.rest().get("start_time") == -1 and fields.rest().get("end_time") == -1:
        return _Row(step_id, description, None, None)
    start_s, end_s = fields.number("start_time"), fields.number("end_time")
    if end_s < start_s:
        fields.fault(f"ends at {show(end_s)} s, before its start at {show(start_s)} s; swap them")
    return _Row(step_id, description, float(start_s), float(end_s))


def _read_errors(path: Path) -> dict[str, list[_Row]]:
    faults: list[RecordError] = []
    document = _load(path)
    if not isinstance(document, list):
        raise RecordError(f"{path}: expected a list of recordings, got {show(document)}.")
    recordings: dict[str, list[_Row]] = {}
    for i, raw in enumerate(document):
        fields = Fields(raw, f"{path}: entry {i}", faults)
        name = fields.text("recording_id")
        if name in recordings:
            fields.fault(f"recording {name!r} was given before; keep one entry for it")
        where = f"{path}: recording {name!r}"
        recordings[name] = []
        for j, raw_row in enumerate(fields.items("step_annotations")):
            row_fields = Fields(raw_row, f"{where}: step {j}", faults)
            row = _row(row_fields)
            for raw_error in row_fields.items("errors") if row_fields.has("errors") else ():
                error = row_fields.inner(raw_error, "error")
                row.errors.append((error.text("tag"), error.text("description")))
            recordings[name].append(row)
        _raise_first(faults)
    return recordings


def _join_errors(recording: _Recording, annotated: list[_Row], where: str) -> None:
    """Give each row its errors; the two files must describe the same performances."""
    if [row.key for row in annotated] != [row.key for row in recording.rows]:
        raise RecordError(
            f"{where}: its steps, or their times, are not those of {STEPS_FILE}; take both files "
            "from the same release."
        )
    for row, twin in zip(recording.rows, annotated, strict=True):
        row.errors = twin.errors


def _read_durations(path: Path) -> dict[str, float]:
    """Seconds of each recording."""
    durations_s = {}
    text = _read_bytes(path).decode("utf-8-sig", errors="replace")
    for line_no, row in enumerate(csv.DictReader(text.splitlines()), start=2):
        name, seconds = row.get("recording_id"), row.get("duration(sec)")
        if not name or not seconds or not _SECONDS.fullmatch(seconds.strip()):
            raise RecordError(
                f"{path}:{line_no}: needs 'recording_id' and 'duration(sec)', a number of seconds; "
                f"got {show(name)} and {show(seconds)}. Correct the line, or the header."
            )
        durations_s[name] = float(seconds)
    return durations_s


def _raise_first(faults: list[RecordError]) -> None:
    if faults:
        raise faults[0]


# -- the plan of a recipe ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """Steps of a recipe in order, and what must be done before each of them."""

    keys: tuple[str, ...]  # one a step: its description, normalised
    descriptions: tuple[Description, ...]  # the same, read
    needs: tuple[frozenset[int], ...]  # positions of all steps that come before by necessity
    key_of_id: dict[int, str]  # what a step_id mostly means in the recipe


def _slug(recipe: str) -> str:
    return re.sub(r"[^a-z0-9]", "", recipe.lower())


def _normalised(description: str) -> str:
    return re.sub(r"\s+|(?<=\w)\s*-\s*", " ", description).strip().lower()


def _make_plan(graph_path: Path, recordings: Sequence[_Recording]) -> _Plan:
    if graph_path.is_file():
        texts, needs = _read_graph(graph_path)
    else:
        texts = [row.description for row in recordings[0].rows]
        needs = [frozenset() for _ in texts]
    keys = tuple(_normalised(text) for text in texts)
    meant: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for row in (row for recording in recordings for row in recording.rows):
        if _normalised(row.description) in keys:
            meant[row.step_id][_normalised(row.description)] += 1
    key_of_id = {step_id: count.most_common(1)[0][0] for step_id, count in meant.items()}
    descriptions = tuple(parse_description(text) for text in texts)
    return _Plan(keys, descriptions, tuple(needs), key_of_id)


def _read_graph(path: Path) -> tuple[list[str], list[frozenset[int]]]:
    """Descriptions in topological order, and for each the positions of all its ancestors."""
    faults: list[RecordError] = []
    fields = Fields(_load(path), str(path), faults)
    nodes = fields.inner(fields.mapping("steps"), "steps")
    texts = {node: nodes.text(node) for node in list(nodes.rest())}
    needs: dict[str, set[str]] = {node: set() for node in texts}
    for edge in fields.items("edges"):
        ends = [str(end) for end in edge] if isinstance(edge, list) else []
        if len(ends) != 2 or not set(ends) <= set(texts):
            fields.fault(f"the edge {show(edge)} must be two nodes of 'steps'; correct it")
        else:
            needs[ends[1]].add(ends[0])
    _raise_first(faults)
    order: list[str] = []
    while len(order) < len(texts):
        free = [n for n in texts if n not in order and needs[n] <= set(order)]
        if not free:
            raise RecordError(f"{path}: its edges run in a circle; remove one of them.")
        node = min(free, key=lambda n: (len(n), n))  # numbers, written as text
        order.append(node)
        needs[node] |= {far for near in needs[node] for far in needs[near]}
    real = [node for node in order if texts[node] not in ("START", "END")]
    place = {node: i for i, node in enumerate(real)}
    return (
        [texts[node] for node in real],
        [frozenset(place[n] for n in needs[node] if n in place) for node in real],
    )


# -- timelines -----------------------------------------------------------------------------------


def _make_timeline(recording: _Recording, plan: _Plan, duration_s: float | None) -> Timeline:
    rows_of, extra = _assign(recording, plan)
    descriptions = [*plan.descriptions, *map(parse_description, extra)]
    begun = {i: min((_span(r)[0] for r in rows), default=None) for i, rows in rows_of.items()}
    steps: list[Step] = []
    activities: list[Activity] = []
    for i, description in enumerate(descriptions):
        rows = rows_of[i]
        step_id = f"S{i + 1}"
        mistakes = []
        for row in rows:
            start_s = _span(row)[0]
            needs = sorted(plan.needs[i]) if i < len(plan.needs) else []
            pending = [n for n in needs if (begun_s := begun[n]) is None or begun_s > start_s]
            first = descriptions[pending[0]] if pending else None
            mistakes += [_mistake(row, tag, text, description, first) for tag, text in row.errors]
        steps.append(
            Step(
                id=step_id,
                name=description.name,
                verb=description.verb,
                item=description.item,
                tool=description.tool,
                start_s=begun[i],
                end_s=max((_span(row)[1] for row in rows), default=None),
                mistakes=tuple(sorted(mistakes, key=lambda m: m.time_s)),
            )
        )
        activities += _activities(rows, step_id, description)
    last_s = max((step.end_s for step in steps if step.end_s is not None), default=0.0)
    if duration_s is not None and last_s > duration_s + _ROUNDING_S:
        raise RecordError(
            f"{recording.where}: a step ends at {last_s} s, after the end of the recording at "
            f"{duration_s} s ({VIDEO_FILE}); correct one of them."
        )
    return Timeline(
        dataset="captaincook4d",
        video_uid=recording.name,
        task=f"make {recording.recipe.lower()}",
        duration_s=last_s + _TAIL_S if duration_s is None else max(duration_s, last_s),
        steps=tuple(steps),
        activities=tuple(sorted(activities, key=lambda a: (a.start_s, a.end_s))),
        scene_seed=int.from_bytes(hashlib.blake2b(recording.name.encode(), digest_size=4).digest()),
        metadata=recording.metadata,
    )


def _assign(recording: _Recording, plan: _Plan) -> tuple[dict[int, list[_Row]], list[str]]:
    """Performances of each step by its position, and descriptions of steps beyond the plan."""
    groups: dict[str, list[_Row]] = {key: [] for key in plan.keys}
    extra: dict[str, str] = {}
    for row in recording.rows:
        key = _normalised(row.description)
        if key not in plan.keys:
            key = plan.key_of_id.get(row.step_id, key)
        if key not in plan.keys:
            extra.setdefault(key, row.description)
        groups.setdefault(key, [])
        if row.start_s is not None:
            groups[key].append(row)
    keys = [*plan.keys, *extra]
    rows_of: dict[int, list[_Row]] = {i: [] for i in range(len(keys))}
    for key, rows in groups.items():
        places = [i for i, k in enumerate(keys) if k == key]
        for k, row in enumerate(sorted(rows, key=_span)):
            rows_of[places[min(k, len(places) - 1)]].append(row)
    return rows_of, list(extra.values())


def _span(row: _Row) -> tuple[float, float]:
    assert row.start_s is not None
    assert row.end_s is not None
    return row.start_s, row.end_s


def _shows_at(row: _Row, tag: str) -> float:
    start_s, end_s = _span(row)
    return start_s + SHOWS_AT.get(tag, 0.5) * (end_s - start_s)


def _mistake(
    row: _Row, tag: str, text: str, step: Description, first: Description | None
) -> Mistake:
    """What went wrong and what to do: the step as planned, or what should have come before it."""
    text = " ".join(text.split()).rstrip(" .") or tag
    kind = "mistake" if tag == "Other" else tag.lower()
    article = "an" if kind[0] in "aeiou" else "a"
    correction, right = step.name, step
    if tag == "Order Error":
        order = re.match(r"step performed (before|after) (.+)", text, re.IGNORECASE)
        if first is not None:
            correction, right = f"first {first.name}", first
        elif order and order[1].lower() == "before":
            correction = f"finish {order[2]} before you {step.name}"
        elif order:
            correction = f"{step.name} before {order[2]}"
    return Mistake(
        time_s=_shows_at(row, tag),
        kind=tag,
        description=f"{article} {kind}: {text[0].lower()}{text[1:]}",
        correction=correction,
        keywords=tuple(dict.fromkeys((right.verb, right.item))),
    )


def _activities(rows: Sequence[_Row], step_id: str, step: Description) -> list[Activity]:
    """Work from nothing to done over all performances, with the mistakes in between."""
    work, mistake = ActivityKind.WORK, ActivityKind.MISTAKE
    pieces: list[tuple[ActivityKind, float, float]] = []
    for row in rows:
        at_s, end_s = _span(row)
        length_s = _MISTAKE_SHARE * (end_s - at_s)
        for shows_s in sorted({_shows_at(row, tag) for tag, _ in row.errors}):
            until_s = min(shows_s + length_s, end_s)
            pieces += [(work, at_s, shows_s), (mistake, max(at_s, shows_s), until_s)]
            at_s = until_s
        pieces.append((work, at_s, end_s))
    pieces = [(kind, start_s, end_s) for kind, start_s, end_s in pieces if end_s > start_s]
    work_s = sum(end_s - start_s for kind, start_s, end_s in pieces if kind is work)
    activities, done_s = [], 0.0
    for i, (kind, start_s, end_s) in enumerate(pieces):
        before = done_s / work_s
        done_s += end_s - start_s if kind is work else 0.0
        rest = any(later is work for later, _, _ in pieces[i + 1 :])
        after = done_s / work_s if rest else 1.0  # not 0.999.. for the last
        activities.append(
            Activity(
                kind=kind,
                start_s=start_s,
                end_s=end_s,
                step_id=step_id,
                item=step.item,
                tool=step.tool,
                progress=(before if rest or kind is work else 1.0, after),
            )
        )
    return activities
