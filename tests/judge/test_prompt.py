from __future__ import annotations

from proassist_lit.judge.dialogue import assistant_lines, reference_lines
from proassist_lit.judge.prompt import compare_prompt, rate_prompt
from tests.judge.fakes import transcript

ONE = transcript(
    said={2: "Use the\n sponge.", 5: "Done!"},
    reference={2: "Wash the pan.", 4: "Well done."},
    user={0: "Hello.", 2: "What now?"},
)
OTHER = transcript(said={}, reference={2: "Wash the pan.", 4: "Well done."}, user={0: "Hello."})

RATE = """\
Below are two dialogues over the same recording: the reference, and that of the assistant to judge.
Every line is `[seconds since the start of the video] speaker: text`. What the user says is the same in all dialogues.

<reference>
[5.0s] User: Hello.
[6.0s] User: What now?
[6.0s] Assistant: Wash the pan.
[7.0s] Assistant: Well done.
</reference>

<assistant>
[5.0s] User: Hello.
[6.0s] User: What now?
[6.0s] Assistant: Use the sponge.
[7.5s] Assistant: Done!
</assistant>

Rate the assistant's dialogue in four aspects, each with a whole number from 1 (very poor) to 5 (excellent):
- correctness: does each instruction or feedback make sense, given the context and the reference?
- promptness: does it come at the right time, neither early nor late?
- efficiency: is it concise, without repetition and needless remarks?
- overall: how helpful is the assistant to the user, all in all?

First analyse the assistant's dialogue line by line, in a few words a line, and name what it leaves
unsaid. Then end with one JSON object, and write nothing after it:
{"correctness": 1-5, "promptness": 1-5, "efficiency": 1-5, "overall": 1-5}"""  # noqa: E501

COMPARE = """\
Below are three dialogues over the same recording: the reference, and those of two assistants, A and B.
Every line is `[seconds since the start of the video] speaker: text`. What the user says is the same in all dialogues.

<reference>
[5.0s] User: Hello.
[6.0s] User: What now?
[6.0s] Assistant: Wash the pan.
[7.0s] Assistant: Well done.
</reference>

<assistant_A>
[5.0s] User: Hello.
[6.0s] User: What now?
[6.0s] Assistant: Use the sponge.
[7.5s] Assistant: Done!
</assistant_A>

<assistant_B>
[5.0s] User: Hello.
</assistant_B>

Say in four aspects whose dialogue is better: "A", "B", or "tie" if neither is. The order in which
the two are shown means nothing.
- correctness: does each instruction or feedback make sense, given the context and the reference?
- promptness: does it come at the right time, neither early nor late?
- efficiency: is it concise, without repetition and needless remarks?
- overall: how helpful is the assistant to the user, all in all?

First analyse both dialogues line by line, in a few words a line, and name what they leave unsaid.
Then end with one JSON object, and write nothing after it:
{"correctness": "A|B|tie", "promptness": "A|B|tie", "efficiency": "A|B|tie", "overall": "A|B|tie"}"""  # noqa: E501


def test_rate_prompt_is_as_it_was() -> None:
    (role, _), user = rate_prompt(ONE)
    assert role == "system"
    assert user == ("user", RATE)


def test_compare_prompt_is_as_it_was() -> None:
    assert compare_prompt(ONE, OTHER)[1] == ("user", COMPARE)
    assert compare_prompt(ONE, OTHER)[0] == rate_prompt(ONE)[0]


def test_dialogue_of_one_who_says_nothing_is_said_to_be_empty() -> None:
    silent = transcript(said={1: " \n"}, reference={})
    assert assistant_lines(silent) == reference_lines(silent) == ()
    [_, (_, text)] = rate_prompt(silent)
    assert "<reference>\n(nothing is said)\n</reference>" in text
    assert "<assistant>\n(nothing is said)\n</assistant>" in text


def test_prompt_takes_percent_signs_as_they_are() -> None:
    [_, (_, text)] = rate_prompt(transcript(said={1: "Heat to 50 %(a)s %s"}))
    assert "[5.5s] Assistant: Heat to 50 %(a)s %s\n" in text
