from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from proassist_lit.data.config import DataConfig
from proassist_lit.data.dataset import ConversationSet
from proassist_lit.data.feature_content import write_content
from proassist_lit.data.sources.proassist import ENCODER
from proassist_lit.errors import ConfigError, FeatureError
from proassist_lit.live import run_encoder
from proassist_lit.live.run_encoder import load_run_encoder
from proassist_lit.vision.encoders import ThumbnailEncoder
from proassist_lit.vision.network import NetworkOptions
from tests.fakes import dialogue

CPU = torch.device("cpu")
MADE = {
    "encoder": "thumbnail4", "revision": "1", "layer": -1, "preprocessing": "average",
    "dtype": "float32", "device": "cpu",
}  # fmt: skip


def prepared(root: Path, made: object, *, encoder: str = "eyes") -> ConversationSet:
    """A set with one recording, whose features say that they were ``made`` like this."""
    record = dialogue(video_uid="video.arrow")
    notes = {} if made is None else {"made": json.dumps(made)}
    write_content(
        root / f"toy/features/{encoder}/video.arrow", {"cls": torch.zeros(20, 1, 48)}, notes
    )
    config = DataConfig(source="proassist", root=str(root), encoder=encoder)
    return ConversationSet("train", (record,), root, config)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, NetworkOptions]]:
    """Encoders that are asked for; each comes as a thumbnail of revision 1."""
    asked = list[tuple[str, NetworkOptions]]()

    def load(name: str, options: NetworkOptions) -> ThumbnailEncoder:
        asked.append((name, options))
        return ThumbnailEncoder(4)

    monkeypatch.setattr(run_encoder, "load_encoder", load)
    return asked


def test_drawn_data_names_its_encoder() -> None:
    data = ConversationSet("train", (), Path(), DataConfig(encoder="thumbnail8"))
    assert load_run_encoder(data, CPU).name == "thumbnail8"
    assert load_run_encoder(data, CPU, name="thumbnail2").name == "thumbnail2"


def test_encoded_features_say_how_they_were_made(
    tmp_path: Path, asked: list[tuple[str, NetworkOptions]]
) -> None:
    load_run_encoder(prepared(tmp_path, MADE), CPU)
    made = {**MADE, "encoder": "google___siglip@-2", "layer": -2, "preprocessing": "processor"}
    load_run_encoder(prepared(tmp_path, {**made, "dtype": "bfloat16"}), CPU)
    load_run_encoder(prepared(tmp_path, {**made, "dtype": "float16", "device": "cuda"}), CPU)
    seen = NetworkOptions(device=CPU, dtype=torch.bfloat16, layer=-2, preprocessing="processor")
    assert asked[0] == ("thumbnail4", NetworkOptions(device=CPU))
    assert asked[1] == ("google/siglip", seen)
    assert asked[2][1].chosen_dtype == torch.float32


def test_features_of_an_unknown_or_another_encoder_are_refused(
    tmp_path: Path, asked: list[tuple[str, NetworkOptions]]
) -> None:
    with pytest.raises(ConfigError, match=r"video\.arrow: .*do not say which encoder"):
        load_run_encoder(prepared(tmp_path, None), CPU)
    short = {key: value for key, value in MADE.items() if key != "revision"}
    with pytest.raises(FeatureError, match=r"video\.arrow: does not say in full.*'revision'"):
        load_run_encoder(prepared(tmp_path, short), CPU)
    with pytest.raises(ConfigError, match=r"weights are 1, but .* made with abc.*--encoder thumb"):
        load_run_encoder(prepared(tmp_path, {**MADE, "revision": "abc"}), CPU)


def test_an_encoder_that_cannot_be_had_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"made with the encoder own-model: .*by --encoder"):
        load_run_encoder(prepared(tmp_path, {**MADE, "encoder": "own-model"}), CPU)


def test_an_encoder_that_is_named_is_run_as_the_features_were_made(
    tmp_path: Path, asked: list[tuple[str, NetworkOptions]]
) -> None:
    made = {**MADE, "encoder": "google___siglip@-2", "layer": -2, "preprocessing": "processor"}
    data = prepared(tmp_path, {**made, "dtype": "bfloat16"})
    seen = NetworkOptions(device=CPU, dtype=torch.bfloat16, layer=-2, preprocessing="processor")
    load_run_encoder(data, CPU, name="copies/siglip")
    assert asked[-1] == ("copies/siglip", seen)
    load_run_encoder(data, CPU, name="thumbnail4")
    assert asked[-1] == ("thumbnail4", NetworkOptions(device=CPU))
    with pytest.warns(UserWarning, match=r"weights are 1, but .* made with abc \(google___siglip"):
        load_run_encoder(prepared(tmp_path, {**made, "revision": "abc"}), CPU, name="copies/siglip")
    for unsaid in (None, {"encoder": "google___siglip"}):
        load_run_encoder(prepared(tmp_path, unsaid), CPU, name="copies/siglip")
        assert asked[-1] == ("copies/siglip", NetworkOptions(device=CPU))


def test_an_encoder_for_features_of_proassist_crops(
    tmp_path: Path, asked: list[tuple[str, NetworkOptions]]
) -> None:
    theirs = prepared(tmp_path, None, encoder=ENCODER)
    cropped = NetworkOptions(device=CPU, preprocessing="crop")
    load_run_encoder(theirs, CPU, name="copies/siglip")
    assert asked[-1] == ("copies/siglip", cropped)
    theirs.feature_path(theirs.conversations[0]).unlink()  # nor are they here
    load_run_encoder(theirs, CPU, name="copies/siglip")
    assert asked[-1] == ("copies/siglip", cropped)
    load_run_encoder(theirs, CPU, name="efficientnet-lite0")  # it has one way
    assert asked[-1] == ("efficientnet-lite0", NetworkOptions(device=CPU))
