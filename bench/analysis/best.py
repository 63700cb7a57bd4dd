"""Which variant is the best, how surely, and its AP without the optimism of having been chosen."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.analysis.run_records import Run
from bench.analysis.samples import Samples
from bench.analysis.statistics import DRAWS, SEED

FloatArray = NDArray[np.float64]

COLUMNS = ("variant", "AP", "probability_best", "AP_corrected")


def best_frame(run: Run, samples: Samples) -> pd.DataFrame:
    """One row per variant of the factorial that can be compared with the baseline; no controls. Best first.

    AP: the baseline's mean plus the variant's difference from it over the seeds of both, so that variants with
        different seeds are compared fairly. Fractions of 1.
    probability_best: share of draws from the joint distribution of the estimates in which the variant has the highest
        AP. Read it as a rank, not as a p value. NaN if the error is not known.
    AP_corrected: AP minus the mean gain of the highest draw over its expectation, if the variant is the best: choosing
        the highest of several estimates is biased upward (parametric bootstrap). NaN elsewhere.
    """
    sample = samples.by_metric["AP", ""]
    baseline = run.baseline
    controls = {cell.variant for cell in run.cells if cell.control is not None}
    compared = {
        name: estimate.effect
        for name in run.variants
        if baseline is not None and name not in {baseline, *controls}
        if (estimate := sample.estimate(samples.vector({name: 1.0, baseline: -1.0}))) is not None
    }
    if baseline is None or not (sample.present[run.variants.index(baseline)]).any():
        return pd.DataFrame(columns=list(COLUMNS))
    base = float(np.nanmean(sample.values[run.variants.index(baseline)]))
    differences = {baseline: 0.0, **compared}
    frame = pd.DataFrame({"variant": list(differences), "AP": base + np.asarray(list(differences.values()))})
    frame["probability_best"] = frame["AP_corrected"] = np.nan
    if compared and (sample.degrees_of_training or sample.replicates is not None):
        # Each variant minus the mean of all: unlike differences from the baseline, these treat all variants alike.
        share = dict.fromkeys(differences, -1 / len(differences))
        estimates = [sample.estimate(samples.vector(share | {name: 1 + share[name]})) for name in differences]
        known = [estimate for estimate in estimates if estimate is not None]
        covariance = sample.covariance(np.stack([estimate.weights for estimate in known]))
        degrees = min(estimate.degrees for estimate in known)
        frame["probability_best"], optimism = _chances(frame["AP"].to_numpy(), covariance, degrees)
        best = int(frame["AP"].to_numpy().argmax())
        frame.loc[best, "AP_corrected"] = float(frame["AP"].iloc[best]) - optimism
    return frame.sort_values("AP", ascending=False, kind="stable", ignore_index=True)[list(COLUMNS)]


def _chances(means: FloatArray, covariance: FloatArray, degrees: float) -> tuple[FloatArray, float]:
    """(K,) probabilities of being the highest, ties shared, and the mean excess of the highest draw.

    The draws have a multivariate t distribution with (K,) means.
    """
    generator = np.random.default_rng(SEED)
    values, vectors = np.linalg.eigh(covariance)
    deviations = generator.standard_normal((DRAWS, len(means))) * np.sqrt(np.maximum(values, 0)) @ vectors.T
    draws = means + deviations / np.sqrt(generator.chisquare(degrees, (DRAWS, 1)) / degrees)
    highest = draws == draws.max(axis=1, keepdims=True)
    optimism = float((draws - means)[np.arange(DRAWS), highest.argmax(axis=1)].mean())
    return (highest / highest.sum(axis=1, keepdims=True)).mean(axis=0), optimism
