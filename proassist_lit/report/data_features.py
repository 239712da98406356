"""What is wrong with features of prepared files: missing, short, of another rate, width or kind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from proassist_lit.data.config import DataConfig
from proassist_lit.data.conversation import Conversation
from proassist_lit.data.dataset import ConversationSet
from proassist_lit.data.feature_content import HowMade
from proassist_lit.errors import FeatureError, ProAssistError
from proassist_lit.report.data_files import DataFile
from proassist_lit.vision.encoder import GRIDS


@dataclass(frozen=True, kw_only=True)
class CheckedFeatures:
    """What was found in the features of a data set.

    Attributes:
        encoders: folders of features that were looked into, by name.
        faults: everything that is wrong.
        left_out: why those of some data sets were not looked at, a line each.
    """

    encoders: tuple[str, ...] = ()
    faults: tuple[ProAssistError, ...] = ()
    left_out: tuple[str, ...] = ()


def check_features(
    files: Iterable[DataFile], encoder: str | None, num_tokens_per_img: int | None
) -> CheckedFeatures:
    """Hold the sound records of ``files`` against their features.

    They lie where a run looks for them: in ``DATASET/features/ENCODER`` of a folder above the file.

    Args:
        files: prepared files.
        encoder: name of the folder of features; None for the only one that a data set has.
        num_tokens_per_img: K whose grids must be there; None for what each record says.
    """
    sets: dict[tuple[Path, str], dict[int, list[Conversation]]] = {}
    faults: list[ProAssistError] = []
    left_out: list[str] = []
    for file in files:
        by_dataset: dict[str, list[Conversation]] = {}
        for conversation in file.conversations:
            by_dataset.setdefault(conversation.dataset, []).append(conversation)
        for dataset, conversations in by_dataset.items():
            root = _find_root(file.path, dataset, encoder or "")
            if root is None and encoder:
                faults.append(
                    FeatureError(
                        f"{file.path}: no folder above it holds {dataset}/features/{encoder}; "
                        "encode the videos of its records first, or correct --features."
                    )
                )
                continue
            if root is None:
                left_out.append(f"{file.path}: no folder above it holds {dataset}/features")
                continue
            folder = root / dataset / "features"
            there = sorted(path.name for path in folder.iterdir() if path.is_dir())
            if not encoder and len(there) != 1:
                left_out.append(
                    f"{file.path}: {folder} holds {', '.join(there) or 'none'}"
                    f"{'; name one by --features' if there else ''}"
                )
                continue
            by_tokens = sets.setdefault((root, encoder or there[0]), {})
            for conversation in conversations:
                tokens = num_tokens_per_img or conversation.num_tokens_per_img
                # what a record says only informs: there are grids for one token in any case
                by_tokens.setdefault(tokens if tokens in GRIDS else 1, []).append(conversation)
    for (root, name), by_tokens in sets.items():
        widths: dict[int, Path] = {}
        ways: dict[HowMade, Path] = {}
        for tokens, conversations in by_tokens.items():
            config = DataConfig(
                source="proassist", root=str(root), encoder=name, num_tokens_per_img=tokens
            )
            found = ConversationSet("", tuple(conversations), root, config)
            faults += found.feature_faults(widths, ways)
    encoders = dict.fromkeys(name for _, name in sets)
    return CheckedFeatures(encoders=tuple(encoders), faults=tuple(faults), left_out=tuple(left_out))


def _find_root(path: Path, dataset: str, encoder: str) -> Path | None:
    """The nearest folder above a file that holds the features of a data set."""
    for parent in path.absolute().parents:
        if (parent / dataset / "features" / encoder).is_dir():
            return parent
    return None
