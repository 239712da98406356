"""Thousands of damaged records of every kind: each is read, or refused with file and line."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proassist_lit.data.conversation import Conversation
from proassist_lit.data.dialogue import write_dialogues
from proassist_lit.data.dialogue_config import DialogueConfig
from proassist_lit.data.record_parser import check_record
from proassist_lit.data.records import Checked, record_to_json, scan
from proassist_lit.data.sources.dst import check_row, conversation_to_row
from proassist_lit.data.sources.toy import ToyConfig, make_toy
from tests.data.dst_rows import EVENTS, row
from tests.data.mutations import _same
from tests.data.records import DATA_DIR, record

NUM_STRUCTURES, NUM_LINES = 600, 200
"""Mutations of each kind of record: of what it holds, and of its line. 4 000 in all."""

WORDS = re.findall(
    r"\S+",
    "frames dst user assistant system DST_UPDATE start complete S1 S9 not_started completed role "
    "content time end updates id transition steps fps labels progress keywords metadata events "
    "initial_state conversation start_frame_idx end_frame_idx start_frame dst_state response "
    "speaking dst_update clip_idx frames_file",
)
TEXTS = ["", " ", "\ud83d", "\x00", "é\u0301\u202e", "\U0001f955" * 9, "x" * 5000, "S1->start;"]
NUMBERS: list[Any] = [0, -1, 1, 3.0, -0.0, 1e308, 5e-324, 2**31, 2**63, 10**400, True, False, None,
                      float("nan"), float("inf")]  # fmt: skip
ODD_BYTES = [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x00", b"\\ud800", b"\\", b'"', b"}", b",,",
             b"1e999", b"-", b"\xef\xbb\xbf"]  # fmt: skip


def toy() -> Any:
    """A generated record: steps, updates, a user who talks, keywords."""
    timelines = make_toy(ToyConfig(num_train=1, num_val=1, num_test=1))["train"]
    made = write_dialogues(timelines, DialogueConfig(), seed=1, every_type=True)
    return json.loads(json.dumps(record_to_json(made[-1])))


def proassist() -> Any:
    """A genuine row where there is one, else a short one of that kind."""
    path = DATA_DIR / "proassist" / "dialog_sample.jsonl"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    bare = record(steps=None, initial_state=None, use_img_sep_token=False, max_seq_len=0)
    bare["conversation"] = [t for t in bare["conversation"] if t["role"] != "dst"]
    return bare


KINDS = {
    "every turn": (record, check_record, record_to_json),
    "toy": (toy, check_record, record_to_json),
    "proassist": (proassist, check_record, record_to_json),
    "dst turns": (row, check_row, conversation_to_row),
    "dst events": (lambda: EVENTS, check_row, conversation_to_row),
}
"""What makes a sound one, what reads it, and the way back."""


def containers(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from containers(inner)


def any_value(rng: random.Random, place: Any) -> Any:
    """A value of any type, at the edges of what a reader expects; or one from elsewhere."""
    match rng.randrange(6):
        case 0:
            return rng.choice(TEXTS)
        case 1:
            return rng.choice(WORDS)
        case 2:
            return copy.deepcopy(place)
        case 3:
            return rng.choice([[], {}, [None], [[]], {"": None}, {"role": "user"}, [3, "a"]])
        case 4:
            return rng.randint(-3, 400)
    return rng.choice(NUMBERS)


def retyped(value: Any) -> Any:
    """The same, as another type that looks like it."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return float(value)
    if isinstance(value, float):
        return str(value)
    if isinstance(value, str):
        return [value]
    return (
        list(value.items())
        if isinstance(value, dict)
        else {str(i): str(v) for i, v in enumerate(value)}
    )


def mutate(rng: random.Random, raw: Any) -> None:
    """Damage one place of ``raw``: as often at the top, in a turn, or deeper."""
    places = list(containers(raw))
    place = rng.choice(rng.choice([places[:1], places[1:12], places]) or places)
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    how = rng.choice(["delete", "replace", "retype", "nest", "repeat", "swap", "rename", "insert"])
    if not keys or how == "insert":
        if isinstance(place, dict):
            place[rng.choice(WORDS)] = any_value(rng, place)
        else:
            place.insert(rng.randint(0, len(place)), any_value(rng, place))
        return
    key, other = rng.choice(keys), rng.choice(keys)
    match how:
        case "delete":
            del place[key]
        case "replace":
            place[key] = any_value(rng, place)
        case "retype":
            place[key] = retyped(place[key])
        case "nest":
            place[key] = {"a": [place[key]]} if rng.random() < 0.5 else [place[key]]
        case "repeat" if isinstance(place, list):
            place.insert(other, copy.deepcopy(place[key]))
        case "rename" if isinstance(place, dict):
            place[rng.choice([*WORDS, f"{key} ", key.upper()])] = place.pop(key)
        case _:
            place[key], place[other] = place[other], place[key]


def assert_read_or_refused(checked: Checked, where: str) -> bool:
    """Check one outcome; return whether the record was read."""
    if isinstance(checked, Conversation):
        assert checked.source == where
        return True
    assert checked
    for fault in checked:
        message = str(fault)
        assert message.startswith(f"{where}: "), message[:200]
        assert "\n" not in message
        assert len(message) < 600
    return False


@pytest.mark.parametrize("kind", KINDS)
def test_any_change_of_a_record_is_read_or_refused(kind: str) -> None:
    make, check, write = KINDS[kind]
    whole, rng = make(), random.Random(kind)
    num_read = 0
    for _ in range(NUM_STRUCTURES):
        raw = copy.deepcopy(whole)
        for _ in range(rng.choice([1, 1, 2, 4])):
            mutate(rng, raw)
        before = copy.deepcopy(raw)
        checked = check(raw, "train.jsonl:17")
        if assert_read_or_refused(checked, "train.jsonl:17"):
            num_read += 1
            assert _same(write(checked), before)
        assert _same(raw, before)  # the reader does not touch what it is given
    assert 0.05 < num_read / NUM_STRUCTURES < 0.95  # both are tried


def damage(rng: random.Random, line: bytes) -> bytes:
    """Overwrite, cut, repeat or insert some bytes; or make it one of another encoding."""
    made = bytearray(line)
    start = rng.randrange(len(made))
    stop = min(start + rng.choice([1, 1, 2, 9, 200]), len(made))
    match rng.randrange(7):
        case 0:
            made[start] = rng.randrange(256)
        case 1:
            del made[start:stop]
        case 2:
            del made[start:]
        case 3:
            made[start:start] = made[start:stop]
        case 4:
            made[start:start] = rng.choice(ODD_BYTES)
        case 5:
            depth = rng.choice([50, 900, 960, *range(984, 1000), 100_000])
            text = bytes(made)
            marker = rng.choice([b'"metadata": {', b'"content": ', b'"fps": '])
            nested = b'"deep": ' if marker.endswith(b"{") else b""
            value = b"[" * depth + b"]" * depth + b", " * bool(nested)
            return text.replace(marker, marker + nested + value, 1)
        case _:
            encoding = rng.choice(["utf-16", "utf-32", "utf-8-sig"])
            return line.decode().encode(encoding).replace(b"\n", b" ")
    return bytes(made).replace(b"\n", b" ")


@pytest.mark.parametrize("kind", KINDS)
def test_any_damage_to_a_line_is_read_or_refused(kind: str, tmp_path: Path) -> None:
    make, check, _ = KINDS[kind]
    whole = make()
    text = json.dumps({**whole, "metadata": whole.get("metadata", {})})
    line, rng = text.encode(), random.Random(kind)
    path = tmp_path / "train.jsonl"
    lines = [damage(rng, line) or b"{" for _ in range(NUM_LINES)]
    path.write_bytes(b"\n".join(lines))
    scanned = list(scan(path, check))
    assert len(scanned) == NUM_LINES
    num_read = sum(
        assert_read_or_refused(checked, f"{path}:{number}")
        for number, checked in enumerate(scanned, start=1)
    )
    assert 0 < num_read < NUM_LINES
