"""Measures where the time of training goes."""

from __future__ import annotations

from lightning.pytorch.profilers import Profiler, PyTorchProfiler, SimpleProfiler

from proassist_lit.run_directory import RunDirectory
from proassist_lit.trainer_config import ProfilerKind

_FILE = (
    "profile"  # Lightning puts what was measured before it, and the process where there are many
)


def build_profiler(kind: ProfilerKind, run: RunDirectory) -> Profiler | None:
    """Lightning's profiler, which writes a summary into the run directory; None for none."""
    if kind is ProfilerKind.SIMPLE:
        return SimpleProfiler(dirpath=run.path, filename=_FILE)
    if kind is ProfilerKind.TORCH:
        return PyTorchProfiler(dirpath=run.path, filename=_FILE)
    return None
