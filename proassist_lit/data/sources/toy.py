"""``toy``: invented recordings of invented tasks, made of verbs, objects and tools.

A task is a *family* (what is made, and the order of its verbs) with objects put into its slots.
Compositions of objects in val and test never occur in train. Recordings are hard to time without
looking: lengths vary threefold and more, work is interrupted, objects are brought and taken away
again, wrong objects and wrong tools are used and put right, strangers walk through the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, permutations

import numpy as np

from proassist_lit.data.appearance import ITEMS, TOOLS
from proassist_lit.data.seeding import stable_rng, stable_seed
from proassist_lit.data.sources.source import InventedSource
from proassist_lit.data.timeline import Activity, ActivityKind, Mistake, Step, Timeline
from proassist_lit.errors import ConfigError
from proassist_lit.types import SPLITS


@dataclass(kw_only=True)
class ToyConfig:
    """How the ``toy`` recordings are invented."""

    num_train: int = 320
    """Recordings in train; >= 1."""

    num_val: int = 10
    """Recordings in val, of compositions that train never shows; >= 1."""

    num_test: int = 14
    """Recordings in test, of compositions that train and val never show; >= 1."""

    seed: int = 1
    """Seed of the whole data set."""

    mistake_rate: float = 0.15
    """Share of steps in which something is done wrong first; in [0, 1]."""

    false_start_rate: float = 0.2
    """Share of steps before which an object is brought and taken away again; in [0, 1]."""

    pause_rate: float = 0.4
    """Share of steps whose work is interrupted; in [0, 1]."""

    distraction_rate: float = 0.03
    """Strangers that walk through the picture, per second; >= 0."""

    def __post_init__(self) -> None:
        for name in ("num_train", "num_val", "num_test"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"data.toy.{name} must be at least 1, got {getattr(self, name)}; every split "
                    "needs a recording."
                )
        for name in ("mistake_rate", "false_start_rate", "pause_rate"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(
                    f"data.toy.{name} must be in [0, 1], got {getattr(self, name)}; it is a share "
                    "of the steps."
                )
        if self.distraction_rate < 0:
            raise ConfigError(
                f"data.toy.distraction_rate must be >= 0 per second, got {self.distraction_rate}."
            )


VERB_TOOLS: dict[str, tuple[str, ...]] = {
    "wash": ("brush", "hose"),
    "peel": ("peeler", "knife"),
    "slice": ("knife", "grater"),
    "chop": ("knife", "shears"),
    "grate": ("grater", "peeler"),
    "mash": ("masher", "pan"),
    "fry": ("pan",),
    "saw": ("saw",),
    "sand": ("sander", "brush"),
    "drill": ("drill",),
    "paint": ("brush", "roller"),
    "cut": ("scissors", "knife"),
    "sew": ("needle",),
    "print": ("stamp", "roller"),
    "plant": ("trowel",),
    "trim": ("shears", "scissors"),
    "water": ("hose",),
}
"""Tools that fit each verb."""

ROOTS = ("carrots", "potatoes", "parsnips", "leeks", "cabbages", "beets", "pumpkins", "eggplants")
FRUITS = ("tomatoes", "chilies", "apples", "limes", "lemons", "bananas", "melons", "plums")
WOODS = ("shelves", "posts", "panels", "brackets", "hinges", "pipes")
CRAFTS = ("ribbons", "cloths", "cards", "patches", "beads", "buttons")
PLANTS = ("tulips", "ferns", "bulbs", "pots")


@dataclass(frozen=True)
class Family:
    """A kind of task: what is made, from which objects, by which verbs on which slots."""

    product: str
    items: tuple[str, ...]
    recipe: str  # "wash 0, peel 1": verbs in order, each with the slot of its object, 0 to 2

    @property
    def steps(self) -> list[tuple[str, int]]:
        """(verb, slot) in order."""
        pairs = (entry.split() for entry in self.recipe.split(", "))
        return [(verb, int(slot)) for verb, slot in pairs]


FAMILIES = (
    Family("soup", ROOTS, "wash 0, peel 1, chop 0, slice 2, fry 1, mash 2"),
    Family("salad", ROOTS + FRUITS, "wash 1, slice 0, grate 2, chop 1, peel 0"),
    Family("stew", ROOTS, "peel 0, chop 1, fry 0, wash 2, slice 2"),
    Family("curry", ROOTS + FRUITS, "chop 0, fry 0, wash 1, mash 1, grate 2"),
    Family("pie", FRUITS, "wash 0, peel 0, slice 1, mash 2, grate 1"),
    Family("jam", FRUITS, "peel 2, mash 2, wash 0, chop 1, fry 0"),
    Family("relish", FRUITS, "grate 0, wash 1, slice 2, chop 0, peel 1"),
    Family("bench", WOODS, "saw 0, sand 0, drill 1, paint 2, wash 1"),
    Family("cabinet", WOODS, "sand 1, saw 2, drill 0, paint 1, cut 2, wash 0"),
    Family("frame", WOODS + CRAFTS, "cut 0, paint 0, sand 1, drill 2, print 1"),
    Family("puppet", CRAFTS, "cut 0, sew 1, paint 2, print 0, trim 2"),
    Family("banner", CRAFTS, "print 1, cut 1, trim 0, sew 0, paint 2"),
    Family("bouquet", PLANTS + CRAFTS, "trim 0, water 0, cut 1, plant 2, sew 1"),
    Family("planter", PLANTS + WOODS, "wash 2, plant 0, water 0, saw 1, paint 1, trim 0"),
)


def _slots_fit(family: Family, items: tuple[str, ...]) -> bool:
    """Only plants are planted and watered; nobody sews a pot."""
    living = set(PLANTS) - {"pots"}
    rules = {"plant": living, "water": living, "sew": set(CRAFTS) - {"cards", "buttons"}}
    return all(items[slot] in rules.get(verb, items) for verb, slot in family.steps)


def compositions(family: Family) -> dict[str, list[tuple[str, ...]]]:
    """Every composition of objects of ``family``, by split; the three are disjoint.

    The split depends on the names alone, so that it is the same for every seed and size: a tenth
    for val, a fifth for test.
    """
    fitting: list[tuple[str, ...]] = [
        items for items in permutations(family.items, 3) if _slots_fit(family, items)
    ]
    fitting.sort(key=lambda items: stable_seed("split", family.product, *items))
    num_val, num_test = -(-len(fitting) // 10), -(-len(fitting) // 5)
    return {
        "val": fitting[:num_val],
        "test": fitting[num_val : num_val + num_test],
        "train": fitting[num_val + num_test :],
    }


def make_toy(config: ToyConfig) -> dict[str, list[Timeline]]:
    """Invent the recordings of every split."""
    sizes = {"train": config.num_train, "val": config.num_val, "test": config.num_test}
    usable = [(family, compositions(family)) for family in FAMILIES]
    made: dict[str, list[Timeline]] = {}
    for split in SPLITS:
        rng = stable_rng("toy", config.seed, split)
        made[split] = []
        for index in range(sizes[split]):
            family, by_split = usable[index % len(usable)]
            items = by_split[split][int(rng.integers(len(by_split[split])))]
            made[split].append(_record(config, split, index, family, items))
    return made


def _record(
    config: ToyConfig, split: str, index: int, family: Family, items: tuple[str, ...]
) -> Timeline:
    """One invented recording of one task."""
    rng = stable_rng("toy", config.seed, split, index)
    plan = [(verb, items[slot], str(rng.choice(VERB_TOOLS[verb]))) for verb, slot in family.steps]
    pace = float(np.exp(rng.uniform(np.log(0.7), np.log(1.5))))  # this person's own
    steps: list[Step] = []
    activities: list[Activity] = []
    now = float(rng.uniform(5.0, 9.0))
    for number, (verb, item, tool) in enumerate(plan, start=1):
        step_id = f"S{number}"
        now += float(rng.uniform(2.0, 6.0))
        if rng.random() < config.false_start_rate:
            brought = item if rng.random() < 0.5 else _look_alike(item, rng)
            length = float(rng.uniform(1.5, 3.5))
            activities.append(
                Activity(kind=ActivityKind.FALSE_START, start_s=now, end_s=now + length,
                         step_id=step_id, item=brought)
            )  # fmt: skip
            now += length + float(rng.uniform(1.5, 4.0))
        mistakes: tuple[Mistake, ...] = ()
        if rng.random() < config.mistake_rate:
            mistake, wrong_item, wrong_tool = _invent_mistake(now, verb, item, tool, rng)
            mistakes = (mistake,)
            length = float(rng.uniform(3.0, 7.0))
            undo = float(rng.uniform(2.0, 4.0))
            activities += [
                Activity(kind=ActivityKind.MISTAKE, start_s=now, end_s=now + length,
                         step_id=step_id, item=wrong_item, tool=wrong_tool, progress=(0.02, 0.2)),
                Activity(kind=ActivityKind.UNDO, start_s=now + length, end_s=now + length + undo,
                         step_id=step_id, item=wrong_item, progress=(0.2, 0.0)),
            ]  # fmt: skip
            now += length + undo + float(rng.uniform(2.0, 4.0))
        start = now
        work, now = _invent_work(config, start, step_id, item, tool, pace, rng)
        activities += work
        steps.append(
            Step(id=step_id, name=f"{verb} {item} with the {tool}",
                 verb=verb, item=item, tool=tool, start_s=start, end_s=now, mistakes=mistakes)
        )  # fmt: skip
    duration = now + float(rng.uniform(5.0, 9.0))
    strangers = rng.poisson(config.distraction_rate * duration)
    for begin in sorted(rng.uniform(0.0, duration - 5.0, strangers)):
        activities.append(
            Activity(kind=ActivityKind.DISTRACTION, start_s=float(begin),
                     end_s=float(begin + rng.uniform(1.5, 4.5)))
        )  # fmt: skip
    others = [name for name in ITEMS if name not in items]
    return Timeline(
        dataset="toy",
        video_uid=f"toy-{split}-{index:05d}",
        task=f"make a {family.product} with {items[0]}, {items[1]} and {items[2]}",
        duration_s=duration,
        steps=tuple(steps),
        activities=tuple(sorted(activities, key=lambda a: a.start_s)),
        scene_seed=stable_seed("scene", config.seed, split, index),
        metadata={
            "family": family.product,
            "composition": list(items),
            "shelf": [*items, *(str(n) for n in rng.choice(others, 3, replace=False))],
        },
    )


def _invent_work(
    config: ToyConfig,
    start: float,
    step_id: str,
    item: str,
    tool: str,
    pace: float,
    rng: np.random.Generator,
) -> tuple[list[Activity], float]:
    """Work from ``start`` until it is done, perhaps with pauses; and the time it is done at."""
    total = float(np.exp(rng.uniform(np.log(4.0), np.log(16.0)))) * pace
    stops = [0.0, 1.0]
    if rng.random() < config.pause_rate:
        stops += [float(x) for x in rng.uniform(0.2, 0.85, int(rng.integers(1, 3)))]
    stops.sort()
    work: list[Activity] = []
    now = start
    for begin, end in pairwise(stops):
        if begin > 0.0:  # a pause: the object stays, the tool and the hand go
            length = float(rng.uniform(1.5, 4.5))
            work.append(
                Activity(kind=ActivityKind.WORK, start_s=now, end_s=now + length,
                         step_id=step_id, item=item, progress=(begin, begin))
            )  # fmt: skip
            now += length
        length = total * (end - begin)
        work.append(
            Activity(kind=ActivityKind.WORK, start_s=now, end_s=now + length, step_id=step_id,
                     item=item, tool=tool, progress=(max(begin, 0.02), end))
        )  # fmt: skip
        now += length
    return work, now


def _look_alike(item: str, rng: np.random.Generator) -> str:
    """Another object of the same colour or the same shape."""
    color, shape = ITEMS[item]
    alike = [n for n, (c, s) in ITEMS.items() if n != item and (c == color or s == shape)]
    return str(rng.choice(alike))


def _invent_mistake(
    time_s: float, verb: str, item: str, tool: str, rng: np.random.Generator
) -> tuple[Mistake, str, str]:
    """A mistake at ``time_s``, with the object and the tool that are then in the hands."""
    if rng.random() < 0.6:
        wrong = _look_alike(item, rng)
        mistake = Mistake(
            time_s=time_s,
            kind="wrong_item",
            description=f"{wrong} instead of {item}",
            correction=f"{verb} {item}",
            keywords=(item,),
        )
        return mistake, wrong, tool
    wrong = str(rng.choice([t for t in TOOLS if t not in VERB_TOOLS[verb]]))
    mistake = Mistake(
        time_s=time_s,
        kind="wrong_tool",
        description=f"the {wrong} instead of the {tool}",
        correction=f"use the {tool}",
        keywords=(tool,),
    )
    return mistake, item, wrong


SOURCE = InventedSource(invent=make_toy, own_settings=lambda config: config.toy)
