"""Translation of tensor names between torchvision's `ssd300_vgg16` and our SSD on vgg16, one to one."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

MARK = "backbone.extra.0.1.weight"  # conv5_1; only torchvision's SSD has this name
POOL4 = 23  # index in VGG16's features of the first layer of extra.0
FULLY = {"1": "fc6", "3": "fc7"}  # by index in the Sequential at the end of extra.0
EXTRA = {"0": "0", "2": "3"}  # our extra levels have an optional norm after each convolution
HEADS = {"classification_head": "class_heads", "regression_head": "box_heads"}


def from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of our SSD on vgg16 from that of torchvision's `ssd300_vgg16`.

    Both have background as class 0 and the same order of priors within a cell. Raises KeyError for any other name.
    """
    return {our_name(name): value for name, value in state.items()}


def to_torchvision(state: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of our SSD under the names of `theirs`, a state dict of torchvision's."""
    return {name: state[our_name(name)] for name in theirs}


def our_name(name: str) -> str:
    """Our name of a tensor of torchvision's `ssd300_vgg16`. Raises KeyError for any other name."""
    match name.split("."):
        case ["backbone", "scale_weight"]:
            return "norms.0.scale"
        case ["backbone", "features", place, kind]:
            return f"backbone.features.features.{place}.{kind}"
        case ["backbone", "extra", "0", place, kind]:
            return f"backbone.features.features.{int(place) + POOL4}.{kind}"
        case ["backbone", "extra", "0", _, place, kind]:
            return f"backbone.features.{FULLY[place]}.{kind}"
        case ["backbone", "extra", level, place, kind]:
            return f"extras.{int(level) - 1}.{EXTRA[place]}.{kind}"
        case ["head", head, "module_list", level, kind]:
            return f"{HEADS[head]}.{level}.{kind}"
    raise KeyError(name)
