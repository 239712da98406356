"""Dialogues of steps without an object, and of recordings whose steps are not told."""

from __future__ import annotations

from itertools import pairwise

from proassist_lit.data.conversation import AssistantTurn, FramesTurn
from proassist_lit.data.dialogue import write_dialogue
from proassist_lit.data.dialogue_config import DialogueConfig, UserType
from proassist_lit.data.timeline import Step, Timeline


def recording(*steps: Step) -> Timeline:
    return Timeline(dataset="d", video_uid="v", task="make it", duration_s=40.0, steps=steps)


STIR = Step(id="S1", name="stir the tea", verb="stir", item="tea", start_s=8.0, end_s=12.0)
WAIT = Step(id="S2", name="wait for a minute", verb="wait", item="wait", start_s=14.0, end_s=20.0)
POUR = Step(id="S3", name="pour the milk", verb="pour", item="milk", start_s=25.0, end_s=30.0)


def test_a_step_without_an_object_is_called_by_its_name() -> None:
    assert (STIR.act, WAIT.act) == ("stir tea", "wait for a minute")
    for seed in range(12):
        made = write_dialogue(
            recording(STIR, WAIT, POUR), DialogueConfig(), UserType.NO_TALK, seed=seed
        )
        said = " ".join(turn.content for turn in made.turns if isinstance(turn, AssistantTurn))
        assert "wait wait" not in said
        assert said.count("wait for a minute") == 2  # told to, and done


def test_frames_are_not_cut_where_steps_are_not_told() -> None:
    config = DialogueConfig(steps=False)
    made = write_dialogue(recording(STIR, WAIT, POUR), config, UserType.NO_TALK, seed=1)
    neighbours = [(type(one), type(other)) for one, other in pairwise(made.turns)]
    assert (FramesTurn, AssistantTurn) in neighbours
    assert (FramesTurn, FramesTurn) not in neighbours
