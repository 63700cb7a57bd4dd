"""Transfer of a trained torchvision SSD beyond its backbone: norms, extra levels and heads.

So a published checkpoint can be evaluated and fine-tuned on data with other classes, fewer classes, or another order of
classes. Heads are only transferred if they read the maps that they were trained on: not behind a neck that replaces
the maps. Behind one that appends channels, the weights for these are zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import SSD300_VGG16_Weights
from torchvision.models.segmentation import FCN_ResNet50_Weights

from bench.detector.torchvision_names import MARK, from_torchvision
from bench.detector.weights import read_state
from bench.errors import UserError

CLASSIFIER = "class_heads."
BOXES = "box_heads."
SHOWN = 4  # tensors that an error message names
# Class names of published heads, background first, by the number of outputs: COCO (by category id) and VOC
PUBLISHED: Mapping[int, Sequence[str]] = {
    len(names): names
    for names in (
        SSD300_VGG16_Weights.COCO_V1.meta["categories"],
        FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"],
    )
}


def class_outputs(weights: str, classes: Sequence[str]) -> tuple[int, ...]:
    """For each class its output of the file's classifier, 0 for none; () if the file holds no SSD.

    weights: as in a specification. A classifier with 91 outputs is COCO's, and one with 21 is VOC's, if they share a
    name with `classes`. Otherwise one with exactly the classes and background is used in its own order.
    Raises UserError if the file has tensors that torchvision's `ssd300_vgg16` does not have, or has no heads.
    """
    if weights in ("pretrained", "none"):
        return ()
    state = read_state(Path(weights))
    if MARK not in state:
        return ()
    outputs = _outputs(_ours(state, weights), weights)
    names = list(PUBLISHED.get(outputs, ()))
    by_name = tuple(names.index(name) if name in names[1:] else 0 for name in classes)
    if any(by_name):
        return by_name
    return tuple(range(1, outputs)) if outputs == len(classes) + 1 else (0,) * len(classes)


def take_over(model: nn.Module, weights: str, outputs: Sequence[int], *, heads: bool) -> tuple[str, ...]:
    """Copy the file's tensors outside the backbone that fit an SSD. Returns their names.

    outputs: from `class_outputs`; a class without one keeps its untrained weights. heads: whether to copy the heads.
    """
    state, own = _ours(read_state(Path(weights)), weights), model.state_dict()
    if heads:
        for name in state.keys() & own.keys():
            if name.startswith((CLASSIFIER, BOXES)) and name.endswith(".weight"):
                missing = max(0, own[name].shape[1] - state[name].shape[1])
                state[name] = F.pad(state[name], (0, 0, 0, 0, 0, missing))
        state |= dict(_selected(state, own, outputs, _outputs(state, weights)))
    fitting = {
        name: value
        for name, value in state.items()
        if not name.startswith("backbone.")
        and (heads or not name.startswith((CLASSIFIER, BOXES)))
        and name in own
        and own[name].shape == value.shape
    }
    model.load_state_dict(fitting, strict=False)
    return tuple(fitting)


def check_taken(model: nn.Module, taken: Sequence[str], weights: str) -> None:
    """Raise UserError if the file left tensors outside the backbone untrained; the message names them."""
    left = [name for name in model.state_dict() if not name.startswith("backbone.") and name not in taken]
    if left:
        theirs = _ours(read_state(Path(weights)), weights)
        named = "; ".join(
            f"{name} has shape {tuple(model.state_dict()[name].shape)}, but "
            + (f"{tuple(theirs[name].shape)} in the file" if name in theirs else "is missing in the file")
            for name in left[:SHOWN]
        )
        raise UserError(
            f"--weights {weights}: {len(left)} tensors of this SSD do not fit: {named}. Give --priors with as many "
            "shapes per level as the heads in the file, or weights of the backbone alone"
        )


def _selected(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], outputs: Sequence[int], count: int
) -> Iterator[tuple[str, Tensor]]:
    """The classifier's tensors, reduced to background and the outputs of our classes."""
    rows = [0, *outputs]
    fresh = [place for place, row in enumerate(rows) if place and not row]
    for name, value in state.items():
        if name.startswith(CLASSIFIER):
            chosen = value.view(-1, count, *value.shape[1:])[:, rows].clone()
            ours = own.get(name)
            if ours is None or ours.numel() != chosen.numel():
                continue  # another number of priors: the shapes cannot agree
            chosen[:, fresh] = ours.view(chosen.shape)[:, fresh].to(chosen.dtype)
            yield name, chosen.flatten(0, 1)


def _outputs(state: Mapping[str, Tensor], weights: str) -> int:
    """The number of classifier outputs per prior, including background."""
    try:
        return state[f"{CLASSIFIER}0.weight"].shape[0] // (state[f"{BOXES}0.weight"].shape[0] // 4)
    except (KeyError, ZeroDivisionError):
        raise UserError(f"--weights {weights}: a torchvision SSD without its heads") from None


def _ours(state: Mapping[str, Tensor], weights: str) -> dict[str, Tensor]:
    try:
        return from_torchvision(state)
    except KeyError as error:
        raise UserError(
            f"--weights {weights}: holds {error.args[0]}, which torchvision's ssd300_vgg16 does not have"
        ) from None
