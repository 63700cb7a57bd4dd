"""Tensors as the flat NumPy arrays that kernels read and write, and the conditions for using kernels."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bench.cpu import loops
from bench.device import fast_paths
from bench.device.hardware import computes_bfloat16

Bounds = tuple[float, float]  # lowest and highest value
Array = npt.NDArray[np.float32] | npt.NDArray[np.int16]  # int16 holds bfloat16, which NumPy does not have
UNBOUNDED: Bounds = (-inf, inf)


def kernels_apply(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether fast paths are on and kernels support this device and dtype on this machine."""
    supported = dtype == torch.float32 or (dtype == torch.bfloat16 and computes_bfloat16("cpu"))
    return fast_paths.enabled() and supported and device.type == "cpu"


def compute_dtype(device: torch.device) -> torch.dtype:
    """The dtype that layers compute in: autocast's, or float32."""
    kind = device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32


def needs_grad(*tensors: Tensor) -> bool:
    """Whether autograd records operations on one of the tensors."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def as_array(tensor: Tensor) -> Array:
    """A view of a tensor; bfloat16 as int16."""
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def as_flat(tensor: Tensor) -> Array:
    """A flat view of a channels-last tensor (B, C, H, W) in the order of its memory."""
    return as_array(tensor.detach().permute(0, 2, 3, 1)).reshape(-1)


def empty_like(x: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialised channels-last tensor, by default of the dtype of `x`."""
    return torch.empty(tuple(shape), dtype=dtype or x.dtype, memory_format=torch.channels_last)


def pack_channels(values: Tensor, group: int) -> Array:
    """(C, ...), with N values per channel, as flat (groups, N, group), padded with zeros to whole groups of channels.

    In bfloat16 N must be even, and neighbours are stored in pairs: (groups, N / 2, group, 2).
    """
    rows = as_array(values.detach().reshape(len(values), -1))
    channels, count = rows.shape
    out = np.empty(-(-channels // group) * group * count, rows.dtype)
    pack = loops.depthwise.pack_channels if values.dtype == torch.float32 else loops.depthwise.pack_channel_pairs
    pack(rows.reshape(-1), channels, count, group, out)
    return out


def output_shape(
    x: Sequence[int], weight: Sequence[int], stride: int, padding: Sequence[int]
) -> tuple[int, int, int, int]:
    """The shape of a convolution's output; padding: rows and columns at the top, bottom, left and right."""
    top, bottom, left, right = padding
    rows = (x[2] + top + bottom - weight[2]) // stride + 1
    return x[0], x[1], rows, (x[3] + left + right - weight[3]) // stride + 1
