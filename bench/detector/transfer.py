"""A trained SSD of torchvision's, taken over beyond its backbone: norms, extra levels and heads.

So a published checkpoint can be scored and fine-tuned on data whose classes are others, fewer, or in
another order. The heads are taken where they see the maps that they were trained on, not behind a neck.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn
from torchvision.models.detection import SSD300_VGG16_Weights
from torchvision.models.segmentation import FCN_ResNet50_Weights

from bench.detector.torchvision_names import MARK, from_torchvision
from bench.detector.weights import read_state
from bench.errors import UserError

CLASSIFIER = "class_heads."
BOXES = "box_heads."
SHOWN = 4  # tensors that an error names
# Names of the outputs of published heads, background first: COCO by its category ids, and VOC.
PUBLISHED: Mapping[int, Sequence[str]] = {
    len(names): names
    for names in (
        SSD300_VGG16_Weights.COCO_V1.meta["categories"],
        FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"],
    )
}


def class_outputs(weights: str, classes: Sequence[str]) -> tuple[int, ...]:
    """For each class the output of the file's classifier that is it, 0 for none; () where the file is no SSD.

    weights: as in a specification. A head of 91 outputs is COCO's and one of 21 is VOC's where they share
    a name with `classes`; one of as many outputs as there are classes beside background is taken as it stands.
    Raises UserError where the file has tensors that torchvision's `ssd300_vgg16` does not have, or lacks heads.
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
    """Copy into an SSD what the file has beside the backbone and fits; the names of what was copied.

    outputs: `class_outputs`; classes without one keep their untrained rows. heads: whether to take those.
    """
    state, own = _ours(read_state(Path(weights)), weights), model.state_dict()
    if heads:
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
    """Raises UserError that names tensors beside the backbone which the file did not fill."""
    left = [name for name in model.state_dict() if not name.startswith("backbone.") and name not in taken]
    if left:
        theirs = _ours(read_state(Path(weights)), weights)
        named = "; ".join(
            f"{name} is {tuple(model.state_dict()[name].shape)} and in the file "
            + (str(tuple(theirs[name].shape)) if name in theirs else "missing")
            for name in left[:SHOWN]
        )
        raise UserError(
            f"--weights {weights}: {len(left)} tensors of this SSD do not fit: {named}. Give --priors with as many "
            "shapes at every level as the file's heads have, or weights of the backbone alone"
        )


def _selected(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], outputs: Sequence[int], count: int
) -> Iterator[tuple[str, Tensor]]:
    """The classifier's tensors with background and the outputs of our classes, prior by prior."""
    rows = [0, *outputs]
    fresh = [place for place, row in enumerate(rows) if place and not row]
    for name, value in state.items():
        if name.startswith(CLASSIFIER):
            chosen = value.view(-1, count, *value.shape[1:])[:, rows].clone()
            ours = own.get(name)
            if ours is None or ours.numel() != chosen.numel():
                continue  # another number of priors: the shapes will not agree
            chosen[:, fresh] = ours.view(chosen.shape)[:, fresh].to(chosen.dtype)
            yield name, chosen.flatten(0, 1)


def _outputs(state: Mapping[str, Tensor], weights: str) -> int:
    """Outputs of the classifier for each prior, background counted."""
    try:
        return state[f"{CLASSIFIER}0.weight"].shape[0] // (state[f"{BOXES}0.weight"].shape[0] // 4)
    except (KeyError, ZeroDivisionError):
        raise UserError(f"--weights {weights}: an SSD of torchvision's without its heads") from None


def _ours(state: Mapping[str, Tensor], weights: str) -> dict[str, Tensor]:
    try:
        return from_torchvision(state)
    except KeyError as error:
        raise UserError(
            f"--weights {weights}: holds {error.args[0]}, which torchvision's ssd300_vgg16 does not have"
        ) from None
