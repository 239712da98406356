"""Step descriptions of CaptainCook4D: from an annotator's sentence to verb, item and tool."""

from __future__ import annotations

import re
from dataclasses import dataclass


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
