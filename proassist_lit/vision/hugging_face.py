"""Any vision model of Hugging Face as an encoder: SigLIP, CLIP, DINOv2 and the like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModel
from transformers.utils import cached_file, extract_commit_hash

from proassist_lit.errors import ConfigError
from proassist_lit.fingerprint import fingerprint
from proassist_lit.vision.network import NetworkEncoder, NetworkOptions
from proassist_lit.vision.preprocessing import FITTED, Preprocessing, Processor


class TransformerEncoder(NetworkEncoder):
    """A vision model of Hugging Face that is in memory.

    ``cls`` is its pooled output (the attention pooling of SigLIP, the class token of CLIP and
    DINOv2), or the mean of its patches where it has none. Grids are pooled from the square map of
    its patches; class and register tokens are no part of that.

    Args:
        model: the vision model alone.
        preprocess: makes its input.
        options: how it is run.
        name: of the folder of its features.
        revision: which weights.

    Raises:
        ConfigError: it has no such layer.
    """

    def __init__(
        self, model: Any, preprocess: Preprocessing, options: NetworkOptions, *, name: str,
        revision: str,
    ) -> None:  # fmt: skip
        super().__init__(model, preprocess, options)
        self.name = name if options.layer == -1 else f"{name}@{options.layer}"
        self.revision = revision
        self._config = config = model.config
        self.width = int(getattr(config, "hidden_size", 0) or config.hidden_sizes[-1])
        num_layers = getattr(config, "num_hidden_layers", None) or len(config.hidden_sizes)
        if not -num_layers - 1 <= options.layer <= num_layers:
            raise ConfigError(
                f"encoder {name}: --layer {options.layer}, but it has {num_layers} layers: give "
                f"-1 (the last one) to {-num_layers - 1} (before the first one)."
            )

    def _see(self, pixels: Tensor) -> tuple[Tensor | None, Tensor]:
        last = self.layer == -1
        out = self._network(pixel_values=pixels, output_hidden_states=not last)
        hidden = out.last_hidden_state if last else out.hidden_states[self.layer]
        pooled = getattr(out, "pooler_output", None)
        cls = None if pooled is None else pooled.flatten(1)
        if hidden.ndim == 4:  # a convolutional network: (F, E, h, w)
            return cls, hidden
        patch = int(self._config.patch_size)
        height, width = (side // patch for side in pixels.shape[2:])
        patches = hidden[:, hidden.shape[1] - height * width :]  # other tokens come first
        return cls, patches.transpose(1, 2).unflatten(2, (height, width))


def load_hugging_face(source: str, options: NetworkOptions) -> TransformerEncoder:
    """Load a vision model, or the vision side of a larger one, from a folder or from the hub.

    Args:
        source: id on the hub, or folder.
        options: how it is run.

    Raises:
        ConfigError: it cannot be loaded, is incomplete, or no vision model.
    """
    try:
        config = AutoConfig.from_pretrained(source)
        config = getattr(config, "vision_config", None) or config
        model, report = AutoModel.from_pretrained(source, config=config, output_loading_info=True)
        processor = AutoImageProcessor.from_pretrained(source, backend="pil")
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(
            f"encoder {source}: cannot be loaded ({_first_line(error)}); name a folder or a hub id "
            "of a vision model with its preprocessor_config.json; without a network: thumbnail16, "
            "efficientnet-lite0 or dinov2-small."
        ) from error
    if report["missing_keys"] or report["mismatched_keys"]:
        raise ConfigError(
            f"encoder {source}: lacks weights ({min(report['missing_keys'], default='sizes')} for "
            "one); download it again, or name another."
        )
    if model.main_input_name != "pixel_values" or config.model_type == "siglip2_vision_model":
        raise ConfigError(
            f"encoder {source}: a {config.model_type} takes no pictures of one size; name a vision "
            "model such as google/siglip-so400m-patch14-384 or facebook/dinov2-small."
        )
    folder = Path(source)
    files = [*folder.glob("*.safetensors"), *folder.glob("*.bin")] if folder.is_dir() else []
    return TransformerEncoder(
        model,
        _preprocessing(source, processor, config, options.preprocessing),
        options,
        name=folder.resolve().name if files else source.replace("/", "___"),
        revision=fingerprint(sorted(files)) if files else _commit(source),
    )


def _commit(source: str) -> str:
    """Which state of a hub's repository was loaded, by where it lies in the cache."""
    path = cached_file(source, "config.json", local_files_only=True)
    commit = extract_commit_hash(path, None)
    if commit is None:
        raise ConfigError(
            f"encoder {source}: nothing tells which weights these are, as features must note; name "
            "a folder with *.safetensors or *.bin in it, or a hub id."
        )
    return str(commit)


def _preprocessing(source: str, processor: Any, config: Any, name: str) -> Preprocessing:
    if name == Processor.name:
        return Processor(processor)
    if name not in FITTED:
        known = ", ".join((*FITTED, Processor.name))
        raise ConfigError(f"--preprocessing {name}: known are {known}.")
    crops = getattr(processor, "do_center_crop", False)
    size = processor.crop_size if crops else processor.size
    sides = (size["height"], size["width"]) if "height" in size else (config.image_size,) * 2
    mean, std = processor.image_mean, processor.image_std
    if mean is None or std is None:
        raise ConfigError(
            f"encoder {source}: its image processor has no mean and std; use --preprocessing "
            "processor."
        )
    return FITTED[name](sides, mean, std)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")[:200]
