"""Words as the Penn Treebank parts them, beside the program that the caption evaluation calls."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from proassist_lit.metrics.ptb import tokenize

DROPPED = {"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"}
"""What the caption evaluation takes for punctuation; brackets it only knows in capitals."""

WORDS = {
    "Cut the carrot.": "cut the carrot",
    "Wait, ... don't stop; it’s fine": "wait do n't stop it 's fine",
    "LET'S go, I'M in": "let 's go i 'm in",
    "I'd've said you can't, you cannot": "i 'd 've said you ca n't you can not",
    "Gonna lemme wanna": "gon na lem me wan na",
    "the driver's seat, the wheels' nuts": "the driver 's seat the wheels nuts",
    "double-check - at ten o'clock -- now": "double-check at ten o'clock now",
    "salt and/or pepper": "salt and/or pepper",
    "the screw.Next step": "the screw.next step",
    "S1.Wash it": "s1.wash it",
    "3.5 cups, 1,000 g at 10:30": "3.5 cups 1,000 g at 10:30",
    "3 1/2 cups, ½ cup, 1/8th": "3 1/2 cups 1/2 cup 1/8th",
    "the 3.5-inch knife, a 1/2-inch slice": "the 3.5-inch knife a 1/2-inch slice",
    "add-1.5 tbsp, add-1/2 tsp": "add-1 .5 tbsp add-1 / 2 tsp",
    "1.5L at 2:30pm, -5 degrees": "1.5 l at 2:30 pm -5 degrees",
    "Attach part A. Then part b.": "attach part a then part b.",
    "Attach part A. Please part B. Good": "attach part a. please part b. good",
    "U.S. bolts at 10 a.m. today": "u.s. bolts at 10 a.m. today",
    "Mr. Smith, bolt no. 5. No. 6, etc.": "mr. smith bolt no. 5 no. 6 etc.",
    "approx. 5 oz. in 2 min.": "approx 5 oz in 2 min",
    "now (about 90°) [note] {x}": "now -lrb- about 90 ° -rrb- -lsb- note -rsb- -lcb- x -rcb-",
    "50% of it & $5": "50 % of it & $ 5",
    '“Look” and "see" it, what?!': "look and see it what ?!",
    "see http://a.com/x or me@x.org": "see http://a.com/x or me@x.org",
    "  ...!": "",
}


@pytest.mark.parametrize(("text", "words"), WORDS.items(), ids=lambda text: text[:20])
def test_words_are_parted_as_by_the_caption_evaluation(text: str, words: str) -> None:
    assert " ".join(tokenize(text)) == words


def _jar() -> Path | None:
    package = importlib.util.find_spec("pycocoevalcap")
    if package is None or not package.submodule_search_locations or not shutil.which("java"):
        return None
    folder = Path(package.submodule_search_locations[0], "tokenizer")
    return next(folder.glob("stanford-corenlp-*.jar"), None)


@pytest.mark.road
def test_the_program_says_the_same(tmp_path: Path) -> None:
    jar = _jar()
    if jar is None:
        pytest.skip("needs Java and the package pycocoevalcap (pip install -e '.[meteor]')")
    (tmp_path / "texts").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    command = [
        "java", "-Dfile.encoding=UTF-8", "-cp", str(jar),
        "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase",
        str(tmp_path / "texts"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    found = [
        " ".join(part for word in line.split() if word not in DROPPED for part in word.split())
        for line in done.stdout.split("\n")
    ]
    assert found[: len(WORDS)] == list(WORDS.values())
