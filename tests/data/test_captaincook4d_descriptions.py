"""What a step is called, and the verb, item and tool in its name."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proassist_lit.data.sources.captaincook4d_descriptions import parse_description


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
