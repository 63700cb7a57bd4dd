"""The kept weights of a cell: loaded if they are those that the record states, otherwise refused in one sentence."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.detector.ssd import SSD
from bench.errors import UserError
from bench.training.trained import save_trained, trained_detector
from tests import tiny

SPEC = tiny.specification().detector
PRIORS = SSD(SPEC, seed=0).priors_fingerprint()


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def saved(thing: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return buffer.getvalue()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda _: b"",
    "text": lambda _: b"no weights",
    "a list": lambda _: saved([1, 2]),
    "a state dict": lambda _: saved(SSD(SPEC, seed=0).state_dict()),
    "other tensors": lambda _: saved({"priors": PRIORS, "model": {"a": torch.zeros(1)}}),
    "no tensors": lambda _: saved({"priors": PRIORS, "model": [1]}),
}


def test_weights_come_back_as_they_were(tmp_path: Path) -> None:
    model = SSD(SPEC, seed=3)
    checksum = save_trained(model, tmp_path / "weights.pt")
    for stated in (checksum, None):  # a record of an earlier version states none
        loaded = trained_detector(SPEC, tmp_path / "weights.pt", stated)
        assert not loaded.training
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("recorded", [True, False], ids=["with checksum", "without"])
def test_damaged_weights_are_refused_with_a_remedy(tmp_path: Path, damage: str, recorded: bool) -> None:
    path = tmp_path / "weights.pt"
    checksum = save_trained(SSD(SPEC, seed=0), path)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(UserError, match=r"weights\.pt.*delete record\.json beside it and resume the run") as raised:
        trained_detector(SPEC, path, checksum if recorded else None)
    assert "\n" not in str(raised.value)


def test_the_checksum_finds_what_would_load(tmp_path: Path) -> None:
    """A flipped byte, or the weights of another cell of the same variant."""
    path = tmp_path / "weights.pt"
    checksum = save_trained(SSD(SPEC, seed=0), path)
    content = path.read_bytes()
    path.write_bytes(flipped(content))
    with pytest.raises(UserError, match="do not match the checksum"):
        trained_detector(SPEC, path, checksum)
    save_trained(SSD(SPEC, seed=1), path)
    with pytest.raises(UserError, match="do not match the checksum"):
        trained_detector(SPEC, path, checksum)


def test_a_detector_of_other_classes_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    save_trained(SSD(replace(SPEC, classes=SPEC.classes + 1), seed=0), path)
    with pytest.raises(UserError, match="do not fit the detector"):
        trained_detector(SPEC, path, None)
