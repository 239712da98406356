"""How much memory training takes."""

from __future__ import annotations

import gc
from pathlib import Path

import torch


class Memory:
    """How far the memory of this process, or of its GPU, grows from now on."""

    def __init__(self, device: torch.device) -> None:
        gc.collect()
        self._device, self._start = device, 0
        if device.type == "cuda":
            torch.cuda.empty_cache()  # of what building the model took
            torch.cuda.reset_peak_memory_stats(device)
            self._start = torch.cuda.memory_allocated(device)
        else:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak
            self._start = self._status("VmRSS")

    @property
    def peak(self) -> int:
        """Bytes at most, with what was there at the start."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return self._status("VmHWM")

    def growth(self) -> int:
        """Bytes of the peak beyond the start."""
        return self.peak - self._start

    @staticmethod
    def _status(name: str) -> int:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])
