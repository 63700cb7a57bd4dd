"""Find near-duplicates: images so similar that one must not be trained on if the other is scored.

It finds copies that were mirrored, rotated by multiples of 90 degrees, recompressed, resized, brightened or slightly
cropped, and neighbouring frames of a recording, in time linear in the number of images:

1. An image becomes a 16 x 16 grey thumbnail. Its descriptor is the normalised vector of differences between
   neighbouring cells, which removes brightness and contrast, and the large flat areas that similar scenes share. Two
   images with a descriptor correlation of at least MIN_CORRELATION are near-duplicates.
2. The signs of random projections of the descriptor form a 64-bit code (Charikar 2002, "Similarity estimation
   techniques from rounding algorithms"): at a correlation r, a share of arccos(r) / pi of the bits differ.
3. The codes are sorted, once for each byte that may come first (as in Manku, Jain and Das Sarma 2007, "Detecting
   near-duplicates for web crawling"), and each is compared with the WINDOW codes that follow it, even if many are
   equal: ten thousand black frames cost no more than ten thousand photographs. Only pairs whose codes differ in few
   bits are correlated.

Every image has eight views, itself and its mirror image in four rotations, so that a rotated copy matches one of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SIDE = 16  # cells of a thumbnail, each way
VIEWS = 8
MIN_CORRELATION = 0.85  # unrelated images reached 0.82 with equal black margins, 0.76 without
FLAT = 1.0  # grey levels; below this RMS difference of neighbouring cells there is only noise
SAME_LEVELS = 2  # grey levels by which cells of equal flat images may differ
WINDOW = 16  # codes that each code is compared with, in each order
MAX_DISTANCE = 12  # of 64 bits; on average 11 differ at MIN_CORRELATION, and 32 between unrelated images
CHUNK = 1024  # images or pairs converted to floating point at a time

CODE_BITS = 64
BYTE_BITS = 8


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(16, 16) uint8 greys, the means over the cells of an (H, W, 3) RGB image."""
    grey = Image.fromarray(image).convert("L")
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX))


def near_duplicates(thumbnails: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(P, 2) rows of near-duplicate images, the lower first, ascending.

    thumbnails: (N, 16, 16) from `thumbnail`. Images already connected through others are not compared, so a large group
    of near-duplicates has only enough pairs to connect it; `groups_of` gives the groups.
    """
    views = _views(thumbnails)
    groups = np.arange(len(thumbnails))
    pairs: NDArray[np.int64] = np.zeros((0, 2), dtype=np.int64)
    for near in candidates(_codes(views)):
        entries = near[groups[near[:, 0] // VIEWS] != groups[near[:, 1] // VIEWS]]
        similar = np.zeros(len(entries), dtype=np.bool_)
        for start in range(0, len(entries), CHUNK):
            first, second = (views[entries[start : start + CHUNK, column]] for column in (0, 1))
            similar[start : start + CHUNK] = _are_similar(first, second)
        if similar.any():
            pictures = np.sort(entries[similar] // VIEWS, axis=1)
            pairs = np.unique(np.concatenate((pairs, pictures)), axis=0)
            groups = groups_of(pairs, len(thumbnails))
    return pairs


def candidates(codes: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    """(P, 2) positions of compared codes that differ in at most MAX_DISTANCE bits, in parts.

    codes: (M,). There are M * WINDOW * 8 comparisons. For each order of the codes, direct neighbours come first, then
    the rest of the window.
    """
    for shift in range(0, CODE_BITS, BYTE_BITS):
        rotated = codes << np.uint64(shift) | codes >> np.uint64((CODE_BITS - shift) % CODE_BITS)
        order = np.argsort(rotated, kind="stable")  # the same order of equal codes on every machine
        in_order = codes[order]
        for steps in (range(1, 2), range(2, WINDOW + 1)):
            near = []
            for step in steps:
                distances = np.bitwise_count(in_order[:-step] ^ in_order[step:])
                places = np.flatnonzero(distances <= MAX_DISTANCE)
                near.append(np.stack((order[places], order[places + step]), axis=1))
            yield np.concatenate(near)


def groups_of(pairs: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """(count,) group of each image; an image without near-duplicates is its own group.

    pairs: (P, 2) rows. Groups are connected components: all frames of a recording form one group, even if its first and
    last frames differ.
    """
    links = coo_array((np.ones(len(pairs), dtype=np.bool_), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(links, directed=False)[1].astype(np.int64)


def across(pairs: NDArray[np.int64], train: NDArray[np.int64], val: NDArray[np.int64]) -> NDArray[np.int64]:
    """(K, 2) rows of validation images with near-duplicates in training, each with one of those.

    pairs: (P, 2) rows from `near_duplicates`. The training image forms a pair with the validation image if one is
    known, and is otherwise the first of the same group.
    """
    count = int(max((array.max(initial=-1) for array in (pairs, train, val)), default=-1)) + 1
    in_train, in_val = (np.isin(np.arange(count), rows) for rows in (train, val))
    groups = groups_of(pairs, count)
    partner = np.full(count, -1, dtype=np.int64)
    first_of_group = np.full(count, -1, dtype=np.int64)
    first_of_group[groups[train[::-1]]] = train[::-1]
    partner[val] = first_of_group[groups[val]]
    both_ways = np.concatenate((pairs, pairs[:, ::-1]))
    direct = both_ways[in_val[both_ways[:, 0]] & in_train[both_ways[:, 1]]]
    partner[direct[:, 0]] = direct[:, 1]
    leaking = np.flatnonzero(in_val & (partner >= 0))
    return np.stack((leaking, partner[leaking]), axis=1)


def _views(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N * 8, 256): each thumbnail and its mirror image in four rotations; row // 8 is the image."""
    rotated = [
        np.rot90(upright, turns, axes=(1, 2)) for upright in (thumbnails, thumbnails[:, :, ::-1]) for turns in range(4)
    ]
    return np.stack(rotated, axis=1).reshape(-1, SIDE * SIDE)


def _differences(views: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(M, 480) differences between neighbouring cells, horizontal and vertical."""
    cells = views.reshape(-1, SIDE, SIDE).astype(np.float32)
    across_and_down = (np.diff(cells, axis=2), np.diff(cells, axis=1))
    return np.concatenate([each.reshape(len(cells), -1) for each in across_and_down], axis=1)


def _codes(views: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """(M,) 64-bit codes; for flat images, whose differences are noise, the brightness in 16 bits."""
    # A constant seed, so that groups are the same at every start.
    planes = np.random.default_rng(0).standard_normal((2 * SIDE * (SIDE - 1), CODE_BITS)).astype(np.float32)
    codes = np.zeros(len(views), dtype=np.uint64)
    for start in range(0, len(views), CHUNK):
        chunk = views[start : start + CHUNK]
        differences = _differences(chunk)
        flat = np.sqrt(np.mean(differences**2, axis=1)) < FLAT
        signs = np.packbits(differences @ planes > 0, axis=1).view(np.uint64)[:, 0]
        codes[start : start + CHUNK] = np.where(flat, chunk.mean(axis=1) * 256, signs).astype(np.uint64)
    return codes


def _are_similar(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(P,) whether two thumbnails (P, 256) are near-duplicates."""
    one, other = _differences(first), _differences(second)
    inner = np.einsum("pd,pd->p", one, other)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    equal = np.abs(first.astype(np.int16) - second).max(axis=1, initial=0) <= SAME_LEVELS
    return (inner >= MIN_CORRELATION * norms) & (norms >= FLAT**2 * one.shape[1]) | equal
