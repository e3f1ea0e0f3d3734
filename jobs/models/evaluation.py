"""Measures of a probability against the truth, and Platt's calibration. Plain NumPy on one number per text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
BINS = 10


@dataclass(frozen=True)
class Bin:
    """Texts whose probability is in [from, to): how many, the mean probability, the share that is positive."""

    lower: float
    upper: float
    texts: int
    probability: float
    positive: float


@dataclass(frozen=True)
class Evaluation:
    """What probabilities are worth. standard_error is the accuracy's, sqrt(a·(1−a)/n).

    f1, precision and recall are those of the positive class; ece: expected calibration error over ten equal bins
    (Naeini et al. 2015); brier: mean squared error (Brier 1950). confident_*: of texts judged with confidence.
    """

    texts: int
    accuracy: float
    standard_error: float
    f1: float
    precision: float
    recall: float
    roc_auc: float
    ece: float
    brier: float
    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int
    confident_share: float
    confident_accuracy: float
    reliability: tuple[Bin, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def evaluate(probability: Floats, positive: Floats, confident: float) -> Evaluation:
    """Compare probabilities with labels (1 positive, 0 negative)."""
    said, truth = probability >= 0.5, positive > 0.5
    n = len(truth)
    tp, fp = int((said & truth).sum()), int((said & ~truth).sum())
    fn, tn = int((~said & truth).sum()), int((~said & ~truth).sum())
    accuracy = (tp + tn) / n
    sure = np.maximum(probability, 1 - probability) >= confident
    bins = _reliability(probability, positive)
    return Evaluation(
        texts=n,
        accuracy=accuracy,
        standard_error=float(np.sqrt(accuracy * (1 - accuracy) / n)),
        f1=2 * tp / max(2 * tp + fp + fn, 1),
        precision=tp / max(tp + fp, 1),
        recall=tp / max(tp + fn, 1),
        roc_auc=roc_auc(probability, truth),
        ece=sum(b.texts * abs(b.probability - b.positive) for b in bins) / n,
        brier=float(np.mean((probability - positive) ** 2)),
        true_positive=tp,
        false_positive=fp,
        true_negative=tn,
        false_negative=fn,
        confident_share=float(sure.mean()),
        confident_accuracy=float((said == truth)[sure].mean()) if sure.any() else 0.0,
        reliability=bins,
    )


def roc_auc(score: Floats, truth: npt.NDArray[np.bool_]) -> float:
    """The share of (positive, negative) pairs that the score puts in order; ties count half (Mann and Whitney 1947)."""
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        return float("nan")
    ranks = float(middle[inverse][truth].sum())
    return (ranks - positives * (positives + 1) / 2) / (positives * negatives)


def platt(score: Floats, positive: Floats) -> tuple[float, float]:
    """slope and offset of logit P(positive) = slope · score + offset, by Newton's method.

    Targets are Platt's smoothed ones (1999), so that separable scores have a finite answer.
    """
    n_positive = positive.sum()
    n_negative = len(positive) - n_positive
    target = np.where(positive > 0.5, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    design = np.stack([score, np.ones_like(score)], axis=1)
    spread = float(np.std(score)) or 1.0
    beta = np.array([1 / spread, 0.0])
    for _ in range(100):
        p = 1 / (1 + np.exp(-design @ beta))
        gradient = design.T @ (p - target)
        hessian = (design * (p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        # Damped: a full step from far away can overshoot.
        beta = beta - step * min(1.0, 2.0 / max(float(np.abs(step * [spread, 1]).max()), 1e-12))
        if float(np.abs(step).max()) < 1e-10:
            break
    return float(beta[0]), float(beta[1])


def _reliability(probability: Floats, positive: Floats) -> tuple[Bin, ...]:
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    bins = []
    for i in range(BINS):
        inside = place == i
        if inside.any():
            p, share = float(probability[inside].mean()), float(positive[inside].mean())
            bins.append(Bin(i / BINS, (i + 1) / BINS, int(inside.sum()), p, share))
    return tuple(bins)
