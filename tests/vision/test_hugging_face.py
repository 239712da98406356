"""SigLIP, CLIP, DINOv2 and the like as encoders, against a plain forward of each model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from transformers import BertConfig, BertModel

from proassist_lit.errors import ConfigError
from proassist_lit.vision.encoder import GRID_SIDES, UNIT
from proassist_lit.vision.encoders import load_encoder
from proassist_lit.vision.network import NetworkOptions
from tests.vision.tiny_networks import (
    LAYERS,
    NAMES,
    SIDE,
    WIDTH,
    save,
    tiny_network,
    tiny_processor,
    tower,
)

GRIDS = ("cls", "2x2", "3x3", "5x5")
CELLS = SIDE // 10  # patches along a side


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    for name in NAMES:
        save(name, folder)
    return folder


def pictures(num_frames: int, height: int = 37, width: int = 83) -> NDArray[np.uint8]:
    rng = np.random.default_rng(num_frames)
    return rng.integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def normalised(frames: NDArray[np.uint8], name: str) -> Tensor:
    processor = tiny_processor(name)
    mean, std = (np.array(v, np.float32) for v in (processor.image_mean, processor.image_std))
    return torch.from_numpy((frames.astype(np.float32) / 255 - mean) / std).permute(0, 3, 1, 2)


def stretched(frames: NDArray[np.uint8], name: str) -> Tensor:
    pixels = normalised(frames, name)
    return functional.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", antialias=False)


def averaged(patches: Tensor, side: int) -> Tensor:
    """(F, cells, E): means over the cells of a grid, from (F, h, w, E)."""
    size = patches.shape[1]
    bounds = [(i * size // side, -(-(i + 1) * size // side)) for i in range(side)]
    return torch.stack(
        [patches[:, a:b, c:d].mean(dim=(1, 2)) for a, b in bounds for c, d in bounds], dim=1
    )


def same(found: NDArray[np.float16], right: Tensor) -> None:
    assert found.dtype == np.float16
    torch.testing.assert_close(torch.from_numpy(found), right.half(), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "skipped"), [("siglip", 0), ("clip", 1), ("dinov2", 1), ("registers", 5)]
)
@torch.no_grad()
def test_features_are_those_of_the_stretched_picture(name: str, skipped: int, folder: Path) -> None:
    frames = pictures(5)
    encoder = load_encoder(str(folder / name))
    found = encoder.encode(frames, GRIDS)

    out = tower(tiny_network(name))(pixel_values=stretched(frames, name))
    patches = out.last_hidden_state[:, skipped:].reshape(5, CELLS, CELLS, WIDTH)
    same(found["cls"], out.pooler_output[:, None])
    for grid in GRIDS[1:]:
        same(found[grid], averaged(patches, GRID_SIDES[grid]))
    assert (encoder.name, encoder.width, encoder.layer) == (name, WIDTH, -1)
    assert encoder.preprocessing == "stretch"


@pytest.mark.parametrize("name", ["siglip", "clip", "dinov2"])
@pytest.mark.parametrize("size", [(37, 83), (120, 61), (60, 60), (301, 299), (SIDE, 3 * SIDE)])
def test_crop_is_proassists(name: str, size: tuple[int, int], folder: Path) -> None:
    frames = pictures(3, *size)
    encoder = load_encoder(str(folder / name), NetworkOptions(preprocessing="crop"))
    scale = SIDE / min(size)  # its smaller side covers
    height, width = (max(round(side * scale), SIDE) for side in size)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    right = [
        np.array(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))
        [top : top + SIDE, left : left + SIDE]
        for frame in frames
    ]  # fmt: skip
    prepared = encoder.prepare(frames)
    torch.testing.assert_close(prepared, normalised(np.stack(right), name), atol=1e-6, rtol=0)
    if size == (SIDE, 3 * SIDE):  # nothing is resized: the middle third as it is
        middle = frames[:, :, SIDE : 2 * SIDE]
        torch.testing.assert_close(prepared, normalised(middle, name), atol=1e-6, rtol=0)
    assert encoder.preprocessing == "crop"


@torch.no_grad()
def test_convolutional_network_has_a_map_already(folder: Path) -> None:
    frames = pictures(3)
    found = load_encoder(str(folder / "resnet")).encode(frames, ("cls", "2x2"))
    out = tiny_network("resnet")(pixel_values=stretched(frames, "resnet"))
    same(found["cls"], out.pooler_output.flatten(2).transpose(1, 2))
    same(found["2x2"], averaged(out.last_hidden_state.permute(0, 2, 3, 1), 2))


@pytest.mark.parametrize("layer", [-2, -LAYERS - 1, 1])
@torch.no_grad()
def test_other_layers_are_raw_hidden_states(layer: int, folder: Path) -> None:
    frames = pictures(2)
    encoder = load_encoder(str(folder / "siglip"), NetworkOptions(layer=layer))
    found = encoder.encode(frames, ("cls", "3x3"))

    out = tower(tiny_network("siglip"))(
        pixel_values=stretched(frames, "siglip"), output_hidden_states=True
    )
    patches = out.hidden_states[layer].reshape(2, CELLS, CELLS, WIDTH)
    same(found["3x3"], averaged(patches, 3))
    same(found["cls"], out.pooler_output[:, None])  # as ever
    assert encoder.name == f"siglip@{layer}"


@pytest.mark.parametrize("name", ["siglip", "clip", "dinov2"])
@pytest.mark.parametrize("size", [(37, 83), (120, 61), (60, 60), (301, 299)])
def test_processor_is_that_of_transformers(name: str, size: tuple[int, int], folder: Path) -> None:
    frames = pictures(3, *size)
    encoder = load_encoder(str(folder / name), NetworkOptions(preprocessing="processor"))
    right = [tiny_processor(name)(f, return_tensors="pt")["pixel_values"] for f in frames]
    assert torch.equal(encoder.prepare(frames), torch.cat(right))
    assert encoder.preprocessing == "processor"


@pytest.mark.parametrize("name", NAMES)
def test_frame_by_frame_is_the_same(name: str, folder: Path) -> None:
    encoder = load_encoder(str(folder / name))
    frames = pictures(2 * UNIT + 3)
    whole = encoder.encode(frames, GRIDS)
    for grid in GRIDS:
        single = np.concatenate([encoder.encode(f[None], GRIDS)[grid] for f in frames])
        np.testing.assert_allclose(whole[grid], single, rtol=1e-3, atol=1e-3)


def test_neighbours_do_not_matter(folder: Path) -> None:
    encoder = load_encoder(str(folder / "siglip"))
    frames, others = pictures(5), pictures(5)[::-1].copy()
    others[2] = frames[2]
    one, two = (encoder.encode(some, ("cls", "2x2")) for some in (frames, others))
    for grid in one:
        np.testing.assert_array_equal(one[grid][2], two[grid][2])
        assert (one[grid][0] != two[grid][0]).any()


def test_precision_is_that_asked_for(folder: Path) -> None:
    frames = pictures(2)
    exact = load_encoder(str(folder / "siglip"))
    half = load_encoder(str(folder / "siglip"), NetworkOptions(dtype=torch.bfloat16))
    assert (exact.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    one, two = (e.encode(frames, ("2x2",))["2x2"] for e in (exact, half))
    assert (one != two).mean() > 0.5
    np.testing.assert_allclose(one, two, rtol=0.2, atol=0.3)


def test_revision_is_that_of_the_weights(folder: Path, tmp_path: Path) -> None:
    before = load_encoder(str(save("dinov2", tmp_path)))
    assert before.revision == load_encoder(str(folder / "dinov2")).revision
    model = tiny_network("dinov2")
    with torch.no_grad():
        model.layernorm.bias += 1
    model.save_pretrained(tmp_path / "dinov2")
    assert load_encoder(str(tmp_path / "dinov2")).revision != before.revision


def test_revision_of_the_hub_is_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit, repository = "0123456789abcdef" * 2 + "01234567", tmp_path / "models--some--siglip"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(commit)
    (repository / "snapshots").mkdir()
    save("siglip", tmp_path).rename(snapshot := repository / "snapshots" / commit)
    encoder = load_encoder("some/siglip")
    assert (encoder.name, encoder.revision) == ("some___siglip", commit)
    (snapshot / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match="some/siglip: cannot be loaded"):
        load_encoder("some/siglip")


def test_weights_without_a_revision_are_refused(tmp_path: Path) -> None:
    folder = save("dinov2", tmp_path)
    weights = load_file(folder / "model.safetensors")
    (folder / "shards").mkdir()
    (folder / "model.safetensors").rename(folder / "shards/1.safetensors")
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, "shards/1.safetensors")})
    )
    with pytest.raises(ConfigError, match=r"dinov2: nothing tells which weights .*name a folder"):
        load_encoder(str(folder))


def test_layer_that_is_not_there_is_refused(folder: Path) -> None:
    for layer in (LAYERS + 1, -LAYERS - 2):
        with pytest.raises(
            ConfigError, match=rf"encoder clip: --layer {layer}, but it has 3 layers: give -1"
        ):
            load_encoder(str(folder / "clip"), NetworkOptions(layer=layer))


def test_unknown_preprocessing_is_refused(folder: Path) -> None:
    with pytest.raises(
        ConfigError, match="--preprocessing pad: known are stretch, crop, processor"
    ):
        load_encoder(str(folder / "clip"), NetworkOptions(preprocessing="pad"))


def test_folder_without_processor_is_refused(tmp_path: Path) -> None:
    tiny_network("dinov2").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be loaded .*preprocessor_config\.json; without"):
        load_encoder(str(tmp_path))


def test_model_of_text_is_refused(tmp_path: Path) -> None:
    BertModel(BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        vocab_size=10)).save_pretrained(tmp_path)  # fmt: skip
    tiny_processor("siglip").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="a bert takes no pictures of one size; name a vision"):
        load_encoder(str(tmp_path))


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    model = tiny_network("dinov2")
    state = {k: v for k, v in model.state_dict().items() if k != "layernorm.bias"}
    model.save_pretrained(tmp_path, state_dict=state)
    tiny_processor("dinov2").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"lacks weights \(layernorm\.bias for one\); download"):
        load_encoder(str(tmp_path))


def test_processor_without_mean_is_refused(tmp_path: Path) -> None:
    save("siglip", tmp_path)
    processor = tiny_processor("siglip")
    processor.image_mean = None
    processor.save_pretrained(tmp_path / "siglip")
    with pytest.raises(ConfigError, match="no mean and std; use --preprocessing processor"):
        load_encoder(str(tmp_path / "siglip"))
