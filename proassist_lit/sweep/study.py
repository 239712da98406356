"""The memory of a search: every trial with its values, in ``study.db`` of the sweep's directory."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from proassist_lit.errors import ConfigError
from proassist_lit.sweep.settings import SearchSettings
from proassist_lit.sweep.space import SearchSpace

STUDY_NAME = "sweep"
_WAIT_S = 120
"""How long a process waits while others write."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A trial that waits for its result.

    Attributes:
        number: of the trial, and of its job.
        overrides: the values that it tries.
    """

    number: int
    overrides: tuple[str, ...]


@contextmanager
def open_storage(folder: Path) -> Iterator[RDBStorage]:
    """The data base of the search in ``folder``; made if need be."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = RDBStorage(
        f"sqlite:///{(folder / 'study.db').resolve()}",
        engine_kwargs={"connect_args": {"timeout": _WAIT_S}},
    )
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def build_pruner(name: str, warmup_trials: int, warmup_steps: int) -> optuna.pruners.BasePruner:
    """What says that a trial is not worth going on with."""
    if name == "none":
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(warmup_trials, warmup_steps)


class Study:
    """Asks for trials and is told what came of them.

    Args:
        storage: of ``open_storage``.
        folder: of the sweep, for messages.
        settings: of the search.
        space: what is searched.

    Raises:
        ConfigError: the data base holds a search over something else.
    """

    def __init__(
        self, storage: RDBStorage, folder: Path, settings: SearchSettings, space: SearchSpace
    ) -> None:
        self._storage, self._settings, self._space = storage, settings, space
        self._study = optuna.create_study(
            storage=storage,
            study_name=STUDY_NAME,
            load_if_exists=True,
            direction=StudyDirection[settings.direction.upper()],
        )
        asked = _what_is_asked(settings, space)
        before = self._study.user_attrs
        wrong = [name for name, text in asked.items() if before.get(name, text) != text]
        if wrong:
            differences = "; ".join(f"{n} was {before[n]}, now it is {asked[n]}" for n in wrong)
            raise ConfigError(
                f"hydra.sweep.dir={folder}: holds a search over something else: {differences}. "
                "Begin in another directory, or give what was given there."
            )
        for name, text in asked.items():
            self._study.set_user_attr(name, text)

    def __len__(self) -> int:
        """Number of trials, whatever became of them."""
        return len(self._trials())

    def unfinished(self) -> list[Asked]:
        """Trials that an earlier start asked for and was not told about."""
        return [self._fill(trial.number) for trial in self._trials(TrialState.RUNNING)]

    def ask(self) -> Asked:
        """A new trial. Its values follow from seed, number, and what was told before."""
        number = len(self)
        self._study.sampler = self._sampler(number)
        trial = self._study.ask()
        assert trial.number == number, "two searches in one directory"
        return Asked(number=number, overrides=tuple(self._space.suggest(trial)))

    def tell(self, number: int, value: float | None, *, pruned: bool = False) -> None:
        """Keep what came of a trial; no finite value and not pruned: it failed."""
        if pruned:
            self._study.tell(number, state=TrialState.PRUNED)
        elif value is None or not math.isfinite(value):
            self._study.tell(number, state=TrialState.FAIL)
        else:
            self._study.tell(number, value)

    def best(self) -> tuple[Asked, float] | None:
        """The best trial with its value; None before any is complete."""
        if not self._trials(TrialState.COMPLETE):
            return None
        trial = self._study.best_trial
        assert trial.value is not None
        return self._fill(trial.number), trial.value

    def numbers(self, state: str) -> list[int]:
        """Numbers of the trials with this state: complete, pruned, fail or running."""
        return [trial.number for trial in self._trials(TrialState[state.upper()])]

    def _fill(self, number: int) -> Asked:
        """The trial's values; those that a kill kept from being drawn are drawn now."""
        self._study.sampler = self._sampler(number)
        study_id = self._storage.get_study_id_from_name(STUDY_NAME)
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
        trial = optuna.trial.Trial(self._study, trial_id)
        return Asked(number=number, overrides=tuple(self._space.suggest(trial)))

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """A sampler for one trial, so that a search gone on with draws as one never stopped."""
        seed = np.random.SeedSequence([self._settings.seed, number]).generate_state(1)
        return optuna.samplers.TPESampler(
            seed=int(seed[0]), constant_liar=self._settings.n_jobs > 1
        )

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states or None)


def _what_is_asked(settings: SearchSettings, space: SearchSpace) -> dict[str, str]:
    """What must not change between two starts, as text."""
    dimensions: dict[str, Any] = {key: asdict(d) for key, d in space.dimensions.items()}
    fixed = sorted(text for text in space.fixed if text.lstrip("+").partition("=")[0] != "resume")
    asked = {
        "direction": settings.direction,
        "space": json.dumps(dimensions, sort_keys=True),
        "fixed": " ".join(fixed) or "nothing",
    }
    if settings.pruner != "none":  # the values that trials report do not say of what they are
        asked["prune_by"] = settings.prune_by
    return asked
