"""What is made of weights is kept while they are what they were."""

from __future__ import annotations

import copy

import torch

from bench.cpu.layout_cache import Kept, learns


def test_it_is_made_anew_where_a_tensor_or_the_purpose_has_changed() -> None:
    kept: Kept[float] = Kept()
    tensor, made = torch.ones(2), []

    def make() -> float:
        made.append(float(tensor.sum()))
        return made[-1]

    assert [kept.get(make, [tensor], "one") for _ in range(2)] == [2.0, 2.0]
    tensor.mul_(2)
    assert kept.get(make, [tensor], "one") == 4.0
    assert kept.get(make, [tensor], "another") == 4.0
    assert kept.get(make, [tensor], "one") == 4.0
    kept.forget()
    assert kept.get(make, [tensor], "one") == 4.0
    assert made == [2.0, 4.0, 4.0, 4.0, 4.0]


def test_another_tensor_is_not_taken_for_one_that_was_where_it_is() -> None:
    """Memory that is given back is given out again, and a new tensor has been changed as often as the old one."""
    kept: Kept[float] = Kept()
    found = []
    for value in range(20):
        tensor = torch.full((1 << 16,), float(value))
        found.append(kept.get(lambda tensor=tensor: float(tensor[0]), [tensor], None))  # type: ignore[misc]
        del tensor
    assert found == list(range(20))


def test_of_tensors_whose_changes_torch_does_not_count_nothing_is_kept() -> None:
    kept: Kept[float] = Kept()
    with torch.inference_mode():
        tensor = torch.ones(2)
        assert kept.get(lambda: float(tensor.sum()), [tensor], None) == 2.0
        tensor.mul_(2)
        assert kept.get(lambda: float(tensor.sum()), [tensor], None) == 4.0


def test_a_copy_begins_with_nothing() -> None:
    kept: Kept[str] = Kept()
    tensor = torch.ones(2)
    assert kept.get(lambda: "first", [tensor], None) == "first"
    assert copy.deepcopy(kept).get(lambda: "second", [tensor], None) == "second"


def test_what_learns() -> None:
    frozen, weight = torch.ones(2), torch.ones(2, requires_grad=True)
    assert learns(frozen, weight)
    assert not learns(frozen)
    with torch.no_grad():
        assert not learns(frozen, weight)
