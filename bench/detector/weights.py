"""Files of weights, loaded without executing anything."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.errors import UserError


def weights_fingerprint(weights: str) -> str:
    """Hash of a file of weights; empty for "pretrained" and "none". Raises UserError if there is no such file."""
    if weights in ("pretrained", "none"):
        return ""
    path = Path(weights)
    if not path.is_file():
        raise UserError(f"--weights {weights}: no such file; or give 'pretrained' or 'none'")
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a file. Raises UserError if the file holds anything else."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"--weights {path}: not a file of tensors that loads safely ({error})") from error
    if isinstance(state, dict):
        state = state.get("state_dict", state.get("model", state))
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"--weights {path}: holds no state dict")
    return state


def load_tensors(
    network: nn.Module, state: Mapping[str, Tensor], weights: str, *, optional: tuple[str, ...] = ()
) -> None:
    """Load the tensors of a network, and ignore others in `state`. Raises UserError if one is missing or does not fit.

    optional: prefixes of names that may be missing.
    """
    own = network.state_dict()
    missing = [
        name
        for name, value in own.items()
        if not name.startswith(optional) and (name not in state or state[name].shape != value.shape)
    ]
    if missing:
        raise UserError(
            f"--weights {weights}: {len(missing)} of {len(own)} tensors are missing or have a different shape: "
            f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}"
        )
    network.load_state_dict({name: state.get(name, value) for name, value in own.items()})
