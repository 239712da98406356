"""What an assistant is told before it watches: prompt, knowledge, and the steps of the task."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from unicodedata import normalize

from proassist_lit.data.conversation import Conversation, TaskStep
from proassist_lit.data.record_checks import Fields, load_json, show
from proassist_lit.data.record_parser import STEP_ID
from proassist_lit.errors import ConfigError, RecordError
from proassist_lit.sequence.chat import Role
from proassist_lit.sequence.script import KNOWLEDGE, Script, Text, read_script
from proassist_lit.streaming.arrivals import heard
from proassist_lit.types import StepState

_SHOWN = 6
"""Recordings that a message names."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task as an assistant is told it.

    Attributes:
        name: for people.
        prompt: content of the first system turn, without the steps.
        steps: steps to keep track of; none for no state.
        initial_state: state of every step at the beginning.
        opening: what is said before the first frame, but by no user: task knowledge.
        recorded: of a recording, everything that is heard before a frame, by frame.
    """

    name: str
    prompt: str
    steps: tuple[TaskStep, ...] = ()
    initial_state: Mapping[str, StepState] = field(default_factory=dict)
    opening: tuple[Text, ...] = ()
    recorded: Mapping[int, tuple[Text, ...]] = field(default_factory=dict)

    def script(self) -> Script:
        """What a stream begins with."""
        return Script(prompt=self.prompt, steps=self.steps, initial_state=dict(self.initial_state))

    def without_steps(self) -> Task:
        """The same for a model that keeps track of none."""
        return replace(self, steps=(), initial_state={})

    def arrivals(self, *, first_frame: int = 0, recorded: bool = False) -> dict[int, list[Text]]:
        """What is heard before which frame.

        Args:
            first_frame: the first one watched.
            recorded: whether the user says what they say in the recording, from that frame on.
        """
        arrivals = {first_frame: list(self.opening)}
        if not recorded:
            return arrivals
        begin = min(self.recorded, default=first_frame)  # where the recording tells the opening
        for frame, texts in self.recorded.items():
            if frame == begin == first_frame:
                arrivals[frame] = list(texts)  # in the order of the recording
            elif frame >= first_frame:
                said = [text for text in texts if frame != begin or text not in self.opening]
                arrivals.setdefault(frame, []).extend(said)
        return arrivals


def task_of_recording(conversation: Conversation, *, steps: bool = True) -> Task:
    """The task of a recording; without ``steps``, its prompt alone."""
    script = read_script(conversation)
    if not steps:
        return Task(name="no task", prompt=script.prompt)
    recorded = {
        moment.frame_idx: texts
        for index, moment in enumerate(script.moments)
        if (texts := heard(script, index))
    }
    first = recorded.get(conversation.start_frame_idx, ())
    return Task(
        name=conversation.stream_id,
        prompt=script.prompt,
        steps=script.steps,
        initial_state=script.initial_state,
        opening=tuple(text for text in first if text.role is Role.SYSTEM),
        recorded=recorded,
    )


def read_task(path: Path) -> Task:
    """Read a task that somebody wrote.

    Args:
        path: a JSON file: ``{"prompt": "...", "knowledge": "...", "steps": ["wash it", ...]}``.
            Knowledge and steps may be left out. Steps are called S1, S2, ... unless they are
            written as ``{"id": "S1", "name": "wash it"}``.

    Raises:
        RecordError: the file cannot be read, or is not like that.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be read as a task ({error}); write a JSON object with prompt, "
            "knowledge and steps."
        ) from error
    return parse_task(load_json(content, str(path)), where=str(path), name=path.stem)


def parse_task(raw: object, *, where: str, name: str) -> Task:
    """Check the JSON of a task, as of ``read_task``.

    Raises:
        RecordError: it is not like that.
    """
    faults: list[RecordError] = []
    fields = Fields(raw, where, faults)
    prompt = fields.text("prompt", may_be_empty=True).strip() if fields.has("prompt") else ""
    if not prompt:
        fields.fault(
            "'prompt' is missing or empty; write what the assistant is told, best the prompt of "
            "the training records"
        )
    knowledge = ""
    steps: tuple[TaskStep, ...] = ()
    if "knowledge" in fields.rest():
        knowledge = fields.text("knowledge", may_be_empty=True).strip()
    if "steps" in fields.rest():
        steps = _read_steps(fields)
    for key in fields.rest():
        fields.fault(
            f"unknown key {show(key)}; a task is a JSON object with prompt, knowledge and steps"
        )
    if faults:
        raise faults[0]
    return Task(
        name=name,
        prompt=prompt,
        steps=steps,
        initial_state={step.id: StepState.NOT_STARTED for step in steps},
        opening=(Text(role=Role.SYSTEM, content=f"{KNOWLEDGE} {knowledge}"),) if knowledge else (),
    )


def _read_steps(task: Fields) -> tuple[TaskStep, ...]:
    steps: dict[str, TaskStep] = {}
    for number, raw in enumerate(task.items("steps"), start=1):
        given = {"id": f"S{number}", "name": raw} if isinstance(raw, str) else raw
        step = task.inner(given, f"step {number}")
        step_id, name = step.text("id").strip(), step.text("name").strip()
        for key in step.rest():
            step.fault(f"unknown key {show(key)}; write its name, or an object with id and name")
        if step_id and not STEP_ID.fullmatch(step_id):
            step.fault(
                f"the id {show(step_id)} must be letters and digits, 32 at most; call it S{number}"
            )
        elif step_id in steps:
            step.fault(
                f"the id {show(step_id)} is that of an earlier step; give each an id of its own"
            )
        steps[step_id] = TaskStep(id=step_id, name=name)
    return tuple(steps.values())


def find_task(wanted: str, recordings: Iterable[Conversation]) -> Task:
    """The task called ``wanted``: a JSON file, or a recording by its id or its video.

    Both may stand behind ``dataset/``, and must where several data sets have one of the name.

    Raises:
        RecordError: the file is wrong, or there is no such recording.
        ConfigError: several data sets have one.
    """
    if wanted.endswith(".json"):
        return read_task(Path(wanted))
    by_name: dict[str, dict[str, Conversation]] = {}  # name, data set
    all_recordings = list(recordings)
    for conversation in all_recordings:
        by_name.setdefault(conversation.id, {}).setdefault(conversation.dataset, conversation)
    for conversation in all_recordings:
        by_name.setdefault(conversation.video_uid, {}).setdefault(
            conversation.dataset, conversation
        )
    for form in (None, "NFC"):  # a Mac decomposes letters in the names of files: e and its accent
        found = _named(wanted, by_name, form)
        if len(found) == 1:
            return task_of_recording(found[0])
        if found:
            names = " or ".join(f"{one.dataset}/{wanted}" for one in found)
            raise ConfigError(
                f"task {wanted!r}: is a recording of {len(found)} data sets; say --task {names}."
            )
    near = difflib.get_close_matches(wanted, by_name, _SHOWN, cutoff=0.5) or list(by_name)[:_SHOWN]
    say = f"; say, {', '.join(near)}" if near else ", which is not here; write a JSON file"
    raise RecordError(f"task {wanted!r}: is no JSON file and no recording of the run's data{say}.")


def _named(
    wanted: str, by_name: Mapping[str, Mapping[str, Conversation]], form: Literal["NFC"] | None
) -> list[Conversation]:
    """Recordings called ``wanted``, one of each data set; in a form of Unicode, or as it is."""

    def same(name: str) -> bool:
        return wanted == name or (
            form is not None and normalize(form, wanted) == normalize(form, name)
        )

    for name, having in by_name.items():
        if same(name):
            return list(having.values())
    return [
        conversation
        for name, having in by_name.items()
        for dataset, conversation in having.items()
        if same(f"{dataset}/{name}")
    ][:1]
