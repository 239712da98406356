"""What an assistant is told before it watches: prompt, knowledge, and the steps of the task."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from unicodedata import normalize

from proassist_lit.data.conversation import Conversation, TaskStep
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
            recorded: whether the user says what they say in the recording.
        """
        if not recorded:
            return {first_frame: list(self.opening)}
        return {frame: list(texts) for frame, texts in self.recorded.items()}


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
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(
            f"{path}: cannot be read as a task ({error}); write a JSON object with prompt, "
            "knowledge and steps."
        ) from error
    return parse_task(raw, where=str(path), name=path.stem)


def parse_task(raw: object, *, where: str, name: str) -> Task:
    """Check the JSON of a task, as of ``read_task``.

    Raises:
        RecordError: it is not like that.
    """
    if not isinstance(raw, dict) or (unknown := set(raw) - {"prompt", "knowledge", "steps"}):
        got = f"the unknown key {min(unknown)!r}" if isinstance(raw, dict) else f"{raw!r:.40}"
        raise RecordError(
            f"{where}: is {got}; a task is a JSON object with prompt, knowledge and steps."
        )
    for key in ("prompt", "knowledge"):
        if not isinstance(raw.get(key, ""), str):
            raise RecordError(f"{where}: {key!r} is {raw[key]!r:.40}; write a text.")
    if not raw.get("prompt", "").strip():
        raise RecordError(
            f"{where}: 'prompt' is missing or empty; write what the assistant is told, best the "
            "prompt of the training records."
        )
    knowledge = raw.get("knowledge", "").strip()
    steps = _read_steps(raw.get("steps", []), where)
    return Task(
        name=name,
        prompt=raw["prompt"].strip(),
        steps=steps,
        initial_state={step.id: StepState.NOT_STARTED for step in steps},
        opening=(Text(role=Role.SYSTEM, content=f"{KNOWLEDGE} {knowledge}"),) if knowledge else (),
    )


def _read_steps(raw: Any, where: str) -> tuple[TaskStep, ...]:
    if not isinstance(raw, list):
        raise RecordError(f"{where}: 'steps' is {raw!r:.40}; write a list of names.")
    steps = []
    for number, entry in enumerate(raw, start=1):
        given = {"id": f"S{number}", "name": entry} if isinstance(entry, str) else entry
        if (
            not isinstance(given, dict)
            or set(given) != {"id", "name"}
            or not all(isinstance(value, str) and value.strip() for value in given.values())
        ):
            raise RecordError(
                f"{where}: step {number} is {entry!r:.60}; write its name, or an object with id "
                "and name."
            )
        steps.append(TaskStep(id=given["id"].strip(), name=given["name"].strip()))
    ids = [step.id for step in steps]
    if twice := sorted({step_id for step_id in ids if ids.count(step_id) > 1}):
        raise RecordError(f"{where}: two steps are called {twice[0]}; give each an id of its own.")
    return tuple(steps)


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
