"""The first system turn, with which every context begins: prompt, steps and their state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from proassist_lit.data.conversation import TaskStep
from proassist_lit.sequence.script import Script
from proassist_lit.types import StepState


def system_text(
    script: Script, state: Mapping[str, StepState], told: str = "", *, overview_first: bool
) -> str:
    """Content of the first system turn: prompt, what is told beside it, steps and their state.

    Args:
        script: gives prompt and steps.
        state: state of the steps to tell.
        told: what a context that is begun anew tells: a summary of what happened, knowledge.
        overview_first: the layout of ProAssist's DST extension, the steps in front.
    """
    prompt = " ".join(part for part in (script.prompt, told) if part)
    if not script.steps:
        return prompt
    if overview_first:
        lines = ["DST Task Overview:", *(f"{step.id}: {step.name}" for step in script.steps)]
        begun = [f"{i} {s.value}" for i, s in state.items() if s is not StepState.NOT_STARTED]
        parts = ["\n".join(lines)]
        if prompt or begun:
            now = f"Dialogue state: {', '.join(begun)}" if begun else ""
            parts.append("\n".join(part for part in (prompt, now) if part))
        return "\n\n".join(parts)
    return " ".join(part for part in (prompt, state_text(script.steps, state)) if part)


def state_text(steps: Sequence[TaskStep], state: Mapping[str, StepState]) -> str:
    """How the prompt tells the steps and their state."""
    entries = []
    for step in steps:
        now = state.get(step.id, StepState.NOT_STARTED)
        mark = "" if now is StepState.NOT_STARTED else f" ({now.value.replace('_', ' ')})"
        entries.append(f"{step.id}: {step.name}{mark}.")
    return "Steps: " + " ".join(entries)
