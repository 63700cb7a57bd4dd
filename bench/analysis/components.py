"""The estimate of a contrast of variants, and its error from training and from the choice of validation images.

The metric of a cell is modelled as variant + seed + training noise, measured on a sample of images. Least squares over
all finished cells estimates the contrast, so a failed cell does not discard the other cells of its seed. With cell
weights w of the estimate:

- The residual mean square of variant + seed, times |w|^2, is the error from training. It includes the part of the image
  error that differs from cell to cell, because every training meets the images with another network.
- Resampling the images for all cells at once gives the whole error from images. The part that training already
  contains is estimated by the residual mean square of the replicates and subtracted, so that it is not counted twice.

This is the usual analysis of two crossed random factors (Searle, Casella and McCulloch, Variance Components, chapter 4;
Owen 2007, "The pigeonhole bootstrap"). Each component has its own degrees of freedom; Satterthwaite's formula combines
them. The residual mean square is pooled over variants, because three seeds of one contrast have two degrees of freedom
and find nothing. A contrast whose own variance over seeds is clearly larger than the pooled one (F test at 5%) uses its
own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import special

HETEROGENEOUS = 0.05  # level of the F test
ESTIMABLE = 1e-9  # largest part of a contrast outside the row space of the design, from rounding
NO_VARIATION = 1e-12  # relative spread of equal differences, from rounding
CONSTANT = "none: equal in all seeds and resamples"  # why a `constant` estimate has no interval


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A contrast with its standard error.

    seeds: number of seeds used. error: the whole standard error; NaN if it cannot be estimated.
    error_training, error_images: its two parts; NaN if not estimated. degrees: of freedom of `error`.
    constant: the contrast has the same value in every seed and replicate, so nothing can be said about its error.
    weights: (K, S) of the cells in the estimate.
    """

    effect: float
    seeds: int
    error: float
    error_training: float
    error_images: float
    degrees: float
    constant: bool
    weights: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One metric of K variants and S seeds.

    values: (K, S), NaN where a cell has no value.
    replicates: (K, S, B) of `bench.analysis.bootstrap.resample`, or None if the images cannot be resampled.
    groups: independent groups of images with ground truths of the metric.
    factor: by which the variance of the replicates is multiplied to be unbiased.
    """

    values: NDArray[np.float64]
    replicates: NDArray[np.float64] | None = None
    groups: int = 0
    factor: float = 1.0

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        return np.isfinite(self.values)

    @cached_property
    def _replicates(self) -> NDArray[np.float64] | None:
        """(K, S, B) without the replicates that lack ground truths, which are the same for all cells."""
        if self.replicates is None:
            return None
        return self.replicates[..., np.isfinite(self.replicates[self.present]).all(axis=0)]

    @cached_property
    def _design(self) -> NDArray[np.float64]:
        """(N, K + S) indicators of variant and seed of the N finished cells."""
        variants, seeds = np.nonzero(self.present)
        design = np.zeros((len(variants), sum(self.values.shape)))
        rows = np.arange(len(variants))
        design[rows, variants] = 1
        design[rows, self.values.shape[0] + seeds] = 1
        return design

    @cached_property
    def _inverse(self) -> NDArray[np.float64]:
        return np.asarray(np.linalg.pinv(self._design))

    @cached_property
    def degrees_of_training(self) -> int:
        """Residual degrees of freedom of variant + seed; 0 if training noise cannot be estimated."""
        return len(self._design) - int(np.linalg.matrix_rank(self._design)) if len(self._design) else 0

    @cached_property
    def mean_square(self) -> float:
        """Residual mean square of one cell; NaN without degrees of freedom."""
        return self._mean_square(self.values[self.present][:, None])

    @cached_property
    def interaction(self) -> float:
        """The part of `mean_square` that comes from the images; 0 without replicates."""
        if self._replicates is None or not self.degrees_of_training:
            return 0.0
        centred = self._replicates[self.present]
        centred = centred - centred.mean(axis=1, keepdims=True)
        replicates = centred.shape[1]
        return self._mean_square(centred) * replicates / (replicates - 1) * self.factor

    def _mean_square(self, columns: NDArray[np.float64]) -> float:
        """Residual mean square of (N, B) columns, averaged over the columns."""
        if not self.degrees_of_training:
            return math.nan
        residuals = columns - self._design @ (self._inverse @ columns)
        return float((residuals**2).sum() / self.degrees_of_training / columns.shape[1])

    def weights(self, contrast: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """(K, S) weights of the cells in the estimate of a (K,) contrast; None if the cells do not determine it."""
        present = self.present[contrast != 0]
        if not present.any(axis=1).all():
            return None
        result = np.zeros_like(self.values)
        if (present == present[0]).all():
            # Least squares then gives the plain mean over these seeds. Computed as such, it has no rounding error.
            result[:, present[0]] = contrast[:, None] / np.count_nonzero(present[0])
            return result
        extended = np.concatenate((contrast, np.zeros(self.values.shape[1])))
        inverse = extended @ self._inverse
        if np.abs(inverse @ self._design - extended).max() > ESTIMABLE:
            return None
        result[self.present] = inverse
        return result

    def estimate(self, contrast: NDArray[np.float64]) -> Estimate | None:
        """The estimate of a (K,) contrast, which sums to zero; None if the finished cells do not determine it."""
        weights = self.weights(contrast)
        if weights is None:
            return None
        used = np.abs(weights) > ESTIMABLE
        effect = _exact_sum(weights[used] * self.values[used])
        resampled = self._resampled(weights)
        whole = float(resampled.var(ddof=1)) * self.factor if resampled is not None else math.nan
        training, inside, degrees = self._training(contrast, weights)
        by_seed = self._by_seed(contrast)
        spread = float(np.ptp(by_seed)) if len(by_seed) > 1 else 0.0
        if math.isnan(training):
            constant = math.isnan(whole) or whole == 0
            error, images, degrees = math.sqrt(whole) if whole >= 0 else math.nan, whole, float(self.groups - 1)
        else:
            scale = max(np.abs(self.values[used]).max(initial=0.0), 1e-300)
            constant = training == 0 or (len(by_seed) > 1 and spread <= NO_VARIATION * scale)
            shared = max(0.0, whole - inside) if whole >= 0 else 0.0
            images = shared + min(inside, training) if whole >= 0 else math.nan
            error = math.sqrt(training + shared)
            image_degrees = max(1, self.groups - 1)
            if error:
                degrees = (training + shared) ** 2 / (training**2 / degrees + shared**2 / image_degrees)
        without_images = training - min(inside, training) if whole >= 0 else training
        return Estimate(
            effect=effect,
            seeds=int(used.any(axis=0).sum()),
            error=math.nan if constant else error,
            error_training=math.sqrt(without_images) if without_images >= 0 else math.nan,
            error_images=math.sqrt(images) if images >= 0 else math.nan,
            degrees=degrees,
            constant=constant,
            weights=weights,
        )

    def covariance(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """(M, M) covariance of M estimates with cell weights (M, K, S), from training and images together."""
        flat = weights.reshape(len(weights), -1)
        products = flat @ flat.T
        result = np.zeros_like(products)
        if self.degrees_of_training:
            result += self.mean_square * products
        if self._replicates is not None:
            resampled = np.stack([self._resampled(each) for each in weights])  # type: ignore[misc]
            images = np.atleast_2d(np.cov(resampled)) * self.factor
            result += _positive_part(images - self.interaction * products)
        return result

    def _resampled(self, weights: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """(B,) replicates of the estimate with cell weights (K, S)."""
        if self._replicates is None:
            return None
        used = np.abs(weights) > ESTIMABLE
        return np.asarray(weights[used] @ self._replicates[used])

    def _by_seed(self, contrast: NDArray[np.float64]) -> NDArray[np.float64]:
        """The contrast in every seed that has all its variants."""
        needed = contrast != 0
        complete = self.present[needed].all(axis=0)
        return np.asarray(contrast[needed] @ self.values[needed][:, complete])

    def _training(self, contrast: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[float, float, float]:
        """Variance of the estimate from training, the part of it that comes from images, and degrees of freedom."""
        if not self.degrees_of_training:
            return math.nan, math.nan, math.nan
        squared = float((weights**2).sum())
        pooled = self.mean_square * squared, self.interaction * squared, float(self.degrees_of_training)
        by_seed = self._by_seed(contrast)
        seeds = len(by_seed)
        if seeds < 2 or self.degrees_of_training <= seeds - 1:
            return pooled
        own = float(by_seed.var(ddof=1))
        expected = self.mean_square * float((contrast**2).sum())
        if not expected or special.fdtrc(seeds - 1, self.degrees_of_training, own / expected) >= HETEROGENEOUS:
            return pooled
        needed = contrast != 0
        inside = 0.0
        if self._replicates is not None:
            complete = self.present[needed].all(axis=0)
            resampled = np.tensordot(contrast[needed], self._replicates[needed][:, complete], axes=1)
            resampled = resampled - resampled.mean(axis=1, keepdims=True)
            deviations = resampled - resampled.mean(axis=0)
            inside = float((deviations**2).sum() / (seeds - 1) / (resampled.shape[1] - 1)) * self.factor
        return own / seeds, inside / seeds, float(seeds - 1)


def _exact_sum(terms: NDArray[np.float64]) -> float:
    """The sum without rounding errors in between: an axis that changes nothing has an effect of exactly zero."""
    return math.fsum(terms.tolist())


def _positive_part(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest positive semidefinite matrix to a symmetric one."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.maximum(values, 0)) @ vectors.T)
