"""The thresholds that a trained run decides by."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from proassist_lit.errors import ConfigError
from proassist_lit.streaming.config import StreamConfig

NAMES = ("theta_speak", "theta_dst")


def with_thresholds(
    config: StreamConfig, metrics: Mapping[str, float | str], *, given: Collection[str] = ()
) -> StreamConfig:
    """``config`` with both thresholds set.

    Args:
        config: of the run.
        metrics: of the run, flat; empty if it was not evaluated. The thresholds of its last split
            count (test's, which were chosen on val), ...
        given: ... but for those of ``config`` that are named here. With ``rule`` among them, the
            run's threshold of speaking was chosen by another rule.

    Raises:
        ConfigError: a threshold is nowhere to be found.
    """
    if "rule" in given and "theta_speak" not in given:
        raise ConfigError(
            f"stream.rule={config.rule.value} was set, but the run's threshold of speaking was "
            "chosen by its own rule; set stream.theta_speak, too (proassist-lit evaluate RUN "
            f"stream.rule={config.rule.value} chooses one on val)."
        )
    found = {name: getattr(config, name) for name in NAMES}
    for name in set(NAMES) - set(given):
        for split in ("test", "val"):
            if isinstance(value := metrics.get(f"{split}/{name}"), float | int):
                found[name] = float(value)
                break
    if missing := [name for name in NAMES if found[name] is None]:
        raise ConfigError(
            f"the run has no {' and no '.join(missing)}: it was not evaluated; do it now "
            "(proassist-lit evaluate RUN --out RUN; another state than the last: proassist-lit "
            "evaluate RUN --checkpoint best), or set "
            f"{' and '.join(f'stream.{name}=0.5' for name in missing)}."
        )
    return replace(config, **found)
