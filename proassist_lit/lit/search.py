"""What the searches before training share: one device, and what was found is kept."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from proassist_lit.atomic import write_text
from proassist_lit.errors import ConfigError
from proassist_lit.trainer_config import TrainerConfig


@dataclass(frozen=True)
class Search:
    """A search for the value of a setting.

    Attributes:
        option: what asks for it, ``find_lr``.
        setting: what it is for, ``trainer.optimizer.lr``.
        off: value of ``option`` that asks for none.
    """

    option: str
    setting: str
    off: str

    def check_one_device(self, trainer: TrainerConfig) -> None:
        """Refuse a run on several devices.

        Raises:
            ConfigError: there are several.
        """
        if trainer.devices != "1" or trainer.num_nodes > 1:
            raise ConfigError(
                f"trainer.{self.option} looks on one device, but trainer.devices="
                f"{trainer.devices}, trainer.num_nodes={trainer.num_nodes}; look on one, then "
                f"train with {self.setting} set to what was found."
            )

    def keep(self, path: Path, value: float) -> None:
        """Write what was found, for a run that goes on."""
        write_text(path, json.dumps({self._key: value}) + "\n")

    def kept(self, path: Path) -> float:
        """What was found when the run began.

        Raises:
            ConfigError: it is not there any more.
        """
        if not path.exists():
            raise ConfigError(
                f"trainer.{self.option}: {path} is not there, in which a run that begins keeps "
                f"what it found; go on with {self.setting} set to what it trained with, and "
                f"trainer.{self.option}={self.off}."
            )
        return float(json.loads(path.read_text(encoding="utf-8"))[self._key])

    @property
    def _key(self) -> str:
        return self.setting.rpartition(".")[2]
