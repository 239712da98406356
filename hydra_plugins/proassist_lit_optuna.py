"""``hydra/sweeper=proassist_optuna``: Hydra finds sweepers in the namespace ``hydra_plugins`` only.

Hydra imports this at every start, so that everything else is imported when a search begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf

from proassist_lit.sweep.settings import NAME, SearchSettings

if TYPE_CHECKING:
    from hydra.types import HydraContext, TaskFunction


class OptunaSweeper(Sweeper):
    """Searches with Optuna; can be stopped, and gone on with in the same ``hydra.sweep.dir``."""

    def __init__(self, **settings: Any) -> None:
        self._settings = settings

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra hands over; nothing is begun yet."""
        self._config, self._context = config, hydra_context
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Search; ``arguments`` are the overrides of the command line."""
        from proassist_lit.sweep.ask_tell import search

        plain: dict[str, Any] = {
            name: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            for name, value in self._settings.items()
        }
        settings = SearchSettings(**plain)
        settings.check()
        search(settings, self._config, self._launcher, arguments)


ConfigStore.instance().store(
    group="hydra/sweeper", name=NAME, node=SearchSettings, provider="proassist_lit"
)
