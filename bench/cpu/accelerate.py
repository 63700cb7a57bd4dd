"""The only entry to the CPU kernels: `accelerate` a detector. Importing this module registers kernels for functions.

An accelerated detector has the outputs and the state-dict names of the plain one, and trains, freezes, saves and loads
in the same way. If kernels would change the feature maps of a network, it keeps its plain layers.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

import bench.cpu.photometric
import bench.cpu.postprocess  # noqa: F401  # both register kernels
from bench.cpu.layers import CLAMPS, FusedBlock, KernelConvolution
from bench.cpu.winograd import WinogradConvolution
from bench.detector.folded_convolution import FoldedConvolution
from bench.detector.folding import probe, same_maps, trace_inputs
from bench.detector.ssd import SSD
from bench.detector.vgg import RELU4_3, VGG16
from bench.device import fast_paths
from bench.device.private_interfaces import inverted_residual_blocks


def accelerate(model: SSD) -> SSD:
    """Replace layers of the detector's backbone by kernels, in place, and return the detector.

    Kernels run only on CPU tensors, and only if `fast_paths.enabled()`.
    """
    backbone = model.backbone
    if isinstance(backbone.features, AcceleratedVGG16):
        return model
    if isinstance(backbone.features, VGG16):
        backbone.features = AcceleratedVGG16(backbone.features)
    else:
        backbone.features = with_kernels(backbone.features)
    return model


def has_kernels_for_grouped(model: SSD) -> bool:
    """Whether kernels compute all grouped convolutions of an accelerated detector."""
    kinds = (nn.Conv2d, FoldedConvolution)
    convolutions = [module for module in model.modules() if isinstance(module, kinds)]
    return all(each.groups == 1 or (isinstance(each, KernelConvolution) and each.depthwise) for each in convolutions)


class AcceleratedVGG16(VGG16):
    """VGG16 with Winograd convolutions, which apply the ReLU themselves or leave it until after the pooling."""

    def __init__(self, plain: VGG16) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(plain.__dict__)
        self.order: list[int] = []  # indices of the layers to run
        for index, layer in enumerate(self.features):
            if isinstance(layer, nn.Conv2d):
                after = self.features[index + 2]
                pooling = [index + 2] if isinstance(after, nn.MaxPool2d) else []
                # A ReLU after a pooling of stride 2 gives the same numbers and gradients from a quarter of the inputs
                late = isinstance(after, nn.MaxPool2d) and after.stride == 2 and index + 1 != RELU4_3
                self.features[index] = WinogradConvolution(layer, relu=not late)
                self.order += [index, *pooling, *([index + 1] if late else [])]

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for index in self.order:
            x = self.features[index](x)
            if index + 1 == RELU4_3:
                maps.append(x)
        return [*maps, self.fc7(self.fc6(x).relu_()).relu_()]


def with_kernels(network: Any) -> Any:
    """A copy of a folded network with kernels, or the network itself if its feature maps would change."""
    folded = [name for name, module in network.named_modules() if type(module) is FoldedConvolution]
    if not folded:
        return network
    accelerated = copy.deepcopy(network)
    for name in folded:
        accelerated.set_submodule(name, KernelConvolution(accelerated.get_submodule(name)))
    with torch.no_grad(), fast_paths.disabled():
        image = probe(-1, 1).to(next(network.parameters()).device)
        _join_activations(accelerated, image)
        _fuse_blocks(accelerated)
        return accelerated if same_maps(accelerated(image), network(image)) else network


def _join_activations(network: Any, image: Tensor) -> None:
    """Move activations that only clamp into the depthwise convolution before or after them."""

    def depthwise(module: nn.Module) -> bool:
        return isinstance(module, KernelConvolution) and module.depthwise

    def clamps(module: nn.Module) -> bool:
        return type(module) in CLAMPS and not isinstance(module, nn.Identity)

    before = trace_inputs(network, image, depthwise, clamps)
    after = trace_inputs(network, image, clamps, depthwise)
    for convolution, activation in before.items():
        network.get_submodule(convolution).before = network.get_submodule(activation)
    for activation, convolution in after.items():
        network.get_submodule(convolution).after = network.get_submodule(activation)
    for activation in {*before.values(), *after}:
        network.set_submodule(activation, nn.Identity())


def _fuse_blocks(network: Any) -> None:
    """Replace the inverted residual blocks that the operator supports."""
    for name, module in list(network.named_modules()):
        if type(module) in inverted_residual_blocks():
            block = FusedBlock(module)
            if block.fusible():
                network.set_submodule(name, block.train(module.training))
