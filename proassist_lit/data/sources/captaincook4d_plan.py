"""The plan of a CaptainCook4D recipe: its steps in order, and what each of them needs first."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from proassist_lit.data.record_checks import Fields, show
from proassist_lit.data.sources.captaincook4d_descriptions import Description, parse_description
from proassist_lit.data.sources.captaincook4d_files import Recording, load_file, raise_first
from proassist_lit.errors import RecordError

GRAPH_DIR = "task_graphs"


@dataclass(frozen=True)
class Plan:
    """Steps of a recipe in order, and what must be done before each of them."""

    keys: tuple[str, ...]  # one a step: its description, normalised
    descriptions: tuple[Description, ...]  # the same, read
    needs: tuple[frozenset[int], ...]  # positions of all that come before; empty: nothing tells
    key_of_id: dict[int, str]  # what a step_id mostly means in the recipe

    def ids_needed(self, place: int) -> tuple[str, ...] | None:
        """Ids of the steps that come before that of ``place``; None if nothing tells them."""
        if place >= len(self.needs):  # there is no graph, or the step is beyond the plan
            return None
        return tuple(f"S{n + 1}" for n in sorted(self.needs[place]))


def _slug(recipe: str) -> str:
    return re.sub(r"[^a-z0-9]", "", recipe.lower())


def normalised(description: str) -> str:
    """The description as steps are told apart by: letter case, spaces and hyphens aside."""
    return re.sub(r"\s+|(?<=\w)\s*-\s*", " ", description).strip().lower()


def make_plan(root: Path, recipe: str, recordings: Sequence[Recording]) -> Plan:
    """The plan of ``recipe``: its task graph below ``root``, or its first recording's order.

    Args:
        root: folder of the authors' files.
        recipe: its name, as the annotations spell it.
        recordings: all recordings of the recipe; at least one.

    Raises:
        RecordError: the graph is there but has a fault.
    """
    graph_path = root / GRAPH_DIR / f"{_slug(recipe)}.json"
    if graph_path.is_file():
        texts, needs = _read_graph(graph_path)
    else:
        texts = [row.description for row in recordings[0].rows]
        needs = []
    keys = tuple(normalised(text) for text in texts)
    meant: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for row in (row for recording in recordings for row in recording.rows):
        if normalised(row.description) in keys:
            meant[row.step_id][normalised(row.description)] += 1
    key_of_id = {step_id: count.most_common(1)[0][0] for step_id, count in meant.items()}
    descriptions = tuple(parse_description(text) for text in texts)
    return Plan(keys, descriptions, tuple(needs), key_of_id)


def _read_graph(path: Path) -> tuple[list[str], list[frozenset[int]]]:
    """Descriptions in topological order, and for each the positions of all its ancestors."""
    faults: list[RecordError] = []
    fields = Fields(load_file(path), str(path), faults)
    nodes = fields.inner(fields.mapping("steps"), "steps")
    texts = {node: nodes.text(node) for node in list(nodes.rest())}
    needs: dict[str, set[str]] = {node: set() for node in texts}
    for edge in fields.items("edges"):
        ends = [str(end) for end in edge] if isinstance(edge, list) else []
        if len(ends) != 2 or not set(ends) <= set(texts):
            fields.fault(f"the edge {show(edge)} must be two nodes of 'steps'; correct it")
        else:
            needs[ends[1]].add(ends[0])
    raise_first(faults)
    order: list[str] = []
    while len(order) < len(texts):
        free = [n for n in texts if n not in order and needs[n] <= set(order)]
        if not free:
            raise RecordError(f"{path}: its edges run in a circle; remove one of them.")
        node = min(free, key=lambda n: (len(n), n))  # numbers, written as text
        order.append(node)
        needs[node] |= {far for near in needs[node] for far in needs[near]}
    real = [node for node in order if texts[node] not in ("START", "END")]
    place = {node: i for i, node in enumerate(real)}
    return (
        [texts[node] for node in real],
        [frozenset(place[n] for n in needs[node] if n in place) for node in real],
    )
