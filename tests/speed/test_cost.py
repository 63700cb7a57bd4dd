"""Operations and parameters agree with counts by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.speed.cost import count_flops, count_parameters


class TwoLayers(nn.Module):
    """A convolution and a linear layer. The norms between them must not change while operations are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.frozen = nn.BatchNorm2d(8).eval()
        self.linear = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.frozen(self.norm(self.convolution(images)))
        result: Tensor = self.linear(maps.mean(dim=(2, 3)))
        return result


def test_flops_agree_with_a_count_by_hand() -> None:
    # Each of 2 x 8 x 10 x 12 outputs is a sum of 3 x 3 x 3 products, each of 2 x 5 one of 8
    expected = 2 * (2 * 8 * 10 * 12 * 27) + 2 * (2 * 5 * 8)
    counted = count_flops(TwoLayers(), torch.rand(2, 3, 10, 12))
    print(f"{counted} operations, {expected} by hand")
    assert counted == expected


def test_counting_flops_does_not_change_the_model() -> None:
    model = TwoLayers()
    assert model.norm.running_mean is not None
    before = model.norm.running_mean.clone()
    count_flops(model, torch.rand(2, 3, 10, 12))
    assert torch.equal(model.norm.running_mean, before)
    assert (model.training, model.norm.training, model.frozen.training) == (True, True, False)


def test_a_shared_parameter_counts_once() -> None:
    model = TwoLayers()
    expected = (3 * 8 * 9 + 8) + 2 * (8 + 8) + (8 * 5 + 5)
    assert count_parameters(model) == expected
    assert count_parameters(nn.ModuleList([model, model.linear])) == expected
