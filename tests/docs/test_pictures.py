from __future__ import annotations

import importlib
from collections.abc import Iterator
from types import ModuleType
from xml.etree import ElementTree

import pytest

from tests.docs.pages import ROOT

FOLDER = ROOT / "docs" / "pictures"


@pytest.fixture(scope="module")
def draw() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs")
        yield importlib.import_module("draw")


def test_pictures_are_what_the_code_makes_today(draw: ModuleType) -> None:
    drawn = draw.draw_all()
    assert {path.name for path in FOLDER.iterdir()} == set(drawn)
    for name, text in drawn.items():
        assert (FOLDER / name).read_text("utf-8") == text, f"python docs/draw.py: {name} is old"


def test_pictures_stand_on_the_page_with_words(draw: ModuleType) -> None:
    page = (ROOT / "docs" / "ideas.md").read_text("utf-8")
    for name, text in draw.draw_all().items():
        assert f"](pictures/{name})" in page
        root = ElementTree.fromstring(text)
        assert root.find("{*}title") is not None
        width, height = (float(root.attrib[key]) for key in ("width", "height"))
        for place in root.iter("{http://www.w3.org/2000/svg}rect"):
            x, y, w, h = (float(place.attrib[key]) for key in ("x", "y", "width", "height"))
            assert 0 <= x <= x + w <= width, f"{name}: a box leaves the picture"
            assert 0 <= y <= y + h <= height, f"{name}: a box leaves the picture"
