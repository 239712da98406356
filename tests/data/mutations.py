"""JSON that is changed at random, to be read or refused."""

from __future__ import annotations

import copy

from hypothesis import strategies as st

# Values that break readers: every JSON type, the edges of numbers, near misses of right values.
NAMES = ["frames", "dst", "user", "assistant", "start", "complete", "S1", "S2", "not_started"]
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 14)
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([10**400, 1e308, -0.0, 2**31, 2**63, "", " ", "\ud800", "x" * 500, *NAMES]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
KEYS = st.sampled_from([
    "role", "content", "time", "start", "end", "updates", "id", "transition", "steps", "fps",
    "labels", "progress", "keywords", "metadata", "initial_state", "S1", "name", "other",
])  # fmt: skip


def _containers(value: object) -> list:
    found = [value] if isinstance(value, (dict, list)) else []
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in inner:
        found += _containers(item)
    return found


def _mutate(data: st.DataObject, raw: object) -> object:
    containers = _containers(raw)
    if not containers or data.draw(st.integers(0, 40)) == 0:
        return data.draw(JSON_VALUES)
    place = data.draw(st.sampled_from(containers))
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    action = data.draw(st.sampled_from(["delete", "replace", "insert", "repeat", "swap"]))
    if action == "insert" or not keys:
        value = data.draw(JSON_VALUES)
        if isinstance(place, dict):
            place[data.draw(KEYS)] = value
        else:
            place.insert(data.draw(st.integers(0, len(place))), value)
        return raw
    key = data.draw(st.sampled_from(keys))
    other = data.draw(st.sampled_from(keys))
    if action == "delete":
        del place[key]
    elif action == "replace":
        place[key] = data.draw(JSON_VALUES)
    elif action == "repeat" and isinstance(place, list):
        place.insert(other, copy.deepcopy(place[key]))
    else:
        place[key], place[other] = place[other], place[key]
    return raw


def _same(a: object, b: object) -> bool:
    """Equal, NaN in an unknown key being equal to itself."""
    return a == b or repr(_sorted(a)) == repr(_sorted(b))


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return sorted((key, _sorted(item)) for key, item in value.items())
    return [_sorted(item) for item in value] if isinstance(value, list) else value
