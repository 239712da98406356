"""The trial that a job is: where it reports to, and whether it should go on."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from hydra.conf import HydraConf

from proassist_lit.metrics.directions import lower_is_better
from proassist_lit.sweep.settings import TARGET

VARIABLE = "PROASSIST_LIT_TRIAL"
"""Environment variable that tells a job which trial it is."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial of a search that ends trials early.

    Attributes:
        folder: of the sweep.
        number: of the trial.
        prune_by: metric that is reported.
        pruner: see ``SearchSettings``, as the rest.
    """

    folder: str
    number: int
    prune_by: str
    pruner: str
    warmup_trials: int
    warmup_steps: int

    @classmethod
    def of_job(cls, hydra: HydraConf, sweep_dir: Path) -> Self | None:
        """The trial of a job of a multirun, from Hydra's settings; None if it has none."""
        sweeper = hydra.sweeper
        if sweeper.get("_target_") != TARGET or sweeper.pruner == "none":
            return None
        return cls(
            folder=str(sweep_dir),
            number=int(hydra.job.num),
            prune_by=sweeper.prune_by,
            pruner=sweeper.pruner,
            warmup_trials=sweeper.warmup_trials,
            warmup_steps=sweeper.warmup_steps,
        )

    @classmethod
    def from_environment(cls) -> Self | None:
        """The trial that this process works for; None outside a search."""
        text = os.environ.get(VARIABLE)
        return cls(**json.loads(text)) if text else None

    def to_text(self) -> str:
        """What ``from_environment`` reads."""
        return json.dumps(asdict(self))

    def report(self, value: float, step: int) -> bool:
        """Report a value of ``prune_by``; return whether training should end here.

        A step reported again, by a job that was gone on with, takes the place of the first report.
        """
        import optuna
        from optuna.study import StudyDirection

        from proassist_lit.sweep.study import STUDY_NAME, build_pruner, open_storage

        with open_storage(Path(self.folder)) as storage:
            study = optuna.load_study(
                study_name=STUDY_NAME,
                storage=storage,
                pruner=build_pruner(self.pruner, self.warmup_trials, self.warmup_steps),
            )
            if lower_is_better(self.prune_by) != (study.direction == StudyDirection.MINIMIZE):
                value = -value
            study_id = storage.get_study_id_from_name(STUDY_NAME)
            trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, self.number)
            storage.set_trial_intermediate_value(trial_id, step, value)
            return study.pruner.prune(study, storage.get_trial(trial_id))
