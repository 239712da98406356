"""What a judge is asked: to rate one dialogue against the reference, or to compare two."""

from __future__ import annotations

from collections.abc import Sequence

from proassist_lit.judge.dialogue import assistant_lines, reference_lines
from proassist_lit.types import Transcript

ASPECTS = ("correctness", "promptness", "efficiency", "overall")
"""What is judged; the keys of the JSON object that an answer ends with."""

MIN_SCORE, MAX_SCORE = 1, 5

Messages = tuple[tuple[str, str], ...]
"""(role, content) of every message of a request."""

_SYSTEM = (
    "You judge assistants that watch a live video of a person at work on a task, and speak up by "
    "themselves when there is something to say. You see no video: the reference dialogue tells "
    "you what happened and what a good assistant would have said, and when. You are strict and "
    "fair."
)

_FORM = (
    "Every line is `[seconds since the start of the video] speaker: text`. What the user says is "
    "the same in all dialogues."
)

_ASPECTS = """\
- correctness: does each instruction or feedback make sense, given the context and the reference?
- promptness: does it come at the right time, neither early nor late?
- efficiency: is it concise, without repetition and needless remarks?
- overall: how helpful is the assistant to the user, all in all?"""

_RATE = f"""\
Below are two dialogues over the same recording: the reference, and that of the assistant to judge.
{_FORM}

%(reference)s

%(assistant)s

Rate the assistant's dialogue in four aspects, each with a whole number from {MIN_SCORE} (very \
poor) to {MAX_SCORE} (excellent):
{_ASPECTS}

First analyse the assistant's dialogue line by line, in a few words a line, and name what it leaves
unsaid. Then end with one JSON object, and write nothing after it:
{{"correctness": 1-5, "promptness": 1-5, "efficiency": 1-5, "overall": 1-5}}"""

_COMPARE = f"""\
Below are three dialogues over the same recording: the reference, and those of two assistants, A \
and B.
{_FORM}

%(reference)s

%(a)s

%(b)s

Say in four aspects whose dialogue is better: "A", "B", or "tie" if neither is. The order in which
the two are shown means nothing.
{_ASPECTS}

First analyse both dialogues line by line, in a few words a line, and name what they leave unsaid.
Then end with one JSON object, and write nothing after it:
{{"correctness": "A|B|tie", "promptness": "A|B|tie", "efficiency": "A|B|tie", "overall": \
"A|B|tie"}}"""


def rate_prompt(transcript: Transcript) -> Messages:
    """Asks for four scores of a stream."""
    parts = {
        "reference": _block("reference", reference_lines(transcript)),
        "assistant": _block("assistant", assistant_lines(transcript)),
    }
    return (("system", _SYSTEM), ("user", _RATE % parts))


def compare_prompt(a: Transcript, b: Transcript) -> Messages:
    """Asks which of two assistants did better on a stream; the reference is that of ``a``."""
    parts = {
        "reference": _block("reference", reference_lines(a)),
        "a": _block("assistant_A", assistant_lines(a)),
        "b": _block("assistant_B", assistant_lines(b)),
    }
    return (("system", _SYSTEM), ("user", _COMPARE % parts))


def _block(name: str, lines: Sequence[str]) -> str:
    return "\n".join((f"<{name}>", *(lines or ("(nothing is said)",)), f"</{name}>"))
