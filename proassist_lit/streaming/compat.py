"""Our settings of streaming in the reference's terms, for ``compat=proassist``."""

from __future__ import annotations

from proassist_lit.errors import ConfigError
from proassist_lit.streaming.config import ContextSource, StreamConfig
from proassist_lit.streaming.reference_context import STRATEGIES, ReferenceConfig


def reference_config(config: StreamConfig) -> ReferenceConfig:
    """The settings with which the reference answers streams as ``config`` asks.

    ``theta_speak=1`` is the reference's 0, at which the next token decides; by our rules it would
    be silence wherever P(speak) < 1. The reference tracks no state: what is set for that
    (``theta_dst``, ``max_dst_tokens``) goes unused, as does the memory for many streams at once.

    Args:
        config: with ``theta_speak`` set, unless ``rise`` decides.

    Raises:
        ConfigError: a setting has no counterpart there, or no threshold is set.

    Source: ProAssist, arXiv:2506.05904, as released; see ``reference_context``.
    """
    check_counterparts(config)
    if config.rise is not None:
        threshold: float | str = f"diff{config.rise!r}"
    elif config.theta_speak is not None:
        threshold = 1.0 - config.theta_speak  # its threshold is on P(not talk)
    else:
        raise ConfigError(
            "stream.theta_speak is not set; set it, or let the evaluation choose it on val."
        )
    return ReferenceConfig(
        strategy=config.strategy.value,
        eval_max_seq_len=config.max_context,
        reserved_seq_len=config.reserve,
        last_keep_len=config.window_tokens,
        not_talk_threshold=threshold,
        use_gt_context=config.context is ContextSource.REFERENCE,
        max_length=config.max_new_tokens,
        summary_max_length=config.max_summary_tokens,
    )


def check_counterparts(config: StreamConfig) -> None:
    """Check that the reference can answer streams as ``config`` asks; thresholds may be missing.

    Raises:
        ConfigError: a setting has no counterpart there. It names all of them.
    """
    faults = []
    if config.strategy.value not in STRATEGIES:
        faults.append(
            f"stream.strategy={config.strategy.value}: the reference tracks no state; choose "
            "stream.strategy=drop_middle (or none, drop_all, summarize)."
        )
    if not config.words:
        faults.append("stream.words=false: the reference always writes; set stream.words=true.")
    if config.min_gap_frames:
        faults.append(
            f"stream.min_gap_frames={config.min_gap_frames}: the reference keeps no gap; set "
            "stream.min_gap_frames=0."
        )
    if config.rule.looks_back:
        faults.append(
            f"stream.rule={config.rule.value}: the reference compares P(not talk) itself; set "
            "stream.rule=threshold."
        )
    if config.stride != 1:
        faults.append(
            f"stream.stride={config.stride}: the reference decides at every frame; set "
            "stream.stride=1."
        )
    if faults:
        raise ConfigError("\n".join(f"compat=proassist with {fault}" for fault in faults))
