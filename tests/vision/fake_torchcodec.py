"""Stands in for TorchCodec, which needs CUDA: PyAV decodes."""

from __future__ import annotations

import sys
from contextlib import suppress
from types import ModuleType, SimpleNamespace

import av
import pytest
import torch


class FakeDecoder:
    """Gives the i-th picture of a track by time, as TorchCodec does; notes what it is asked."""

    made: list[dict[str, object]]
    late_s = 0.0
    fails_from = 1000

    def __init__(self, source: str, **options: object) -> None:
        type(self).made.append(options)
        assert options["dimension_order"] == "NHWC"
        assert options["seek_mode"] == "exact"
        with av.open(source) as container:
            track = container.streams[options["stream_index"]]  # type: ignore[index]
            assert track.type == "video"
            frames = []
            for packet in container.demux(track):
                with suppress(av.FFmpegError):  # of a damaged end
                    frames += packet.decode()
        self._frames = sorted(frames, key=lambda frame: frame.time or 0.0)

    def get_frames_at(self, indices: list[int]) -> SimpleNamespace:
        type(self).made[-1].setdefault("asked", []).extend(indices)  # type: ignore[attr-defined]
        if max(indices) >= self.fails_from:
            raise RuntimeError("no NVDEC for\nthis codec")
        some = [self._frames[i] for i in indices]  # type: ignore[misc]
        return SimpleNamespace(
            data=torch.stack([torch.from_numpy(f.to_ndarray(format="rgb24")) for f in some]),
            pts_seconds=torch.tensor([(f.time or 0.0) + self.late_s for f in some]).double(),
        )


def install(patch: pytest.MonkeyPatch) -> type[FakeDecoder]:
    """From now on it is what ``torchcodec`` is imported as."""
    module, decoders = ModuleType("torchcodec"), ModuleType("torchcodec.decoders")
    decoders.VideoDecoder = FakeDecoder  # type: ignore[attr-defined]
    module.decoders = decoders  # type: ignore[attr-defined]
    patch.setitem(sys.modules, "torchcodec", module)
    patch.setitem(sys.modules, "torchcodec.decoders", decoders)
    patch.setattr(FakeDecoder, "made", [], raising=False)
    return FakeDecoder


def uninstall(patch: pytest.MonkeyPatch, error: Exception) -> None:
    """From now on importing it fails like this."""

    class Finder:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "torchcodec":
                raise error

    for name in ("torchcodec", "torchcodec.decoders"):
        patch.delitem(sys.modules, name, raising=False)
    patch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
