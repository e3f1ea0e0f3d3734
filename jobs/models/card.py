"""A model's description as a model card for people (Mitchell et al. 2019, https://arxiv.org/abs/1810.03993)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any


def model_card(d: Mapping[str, Any]) -> str:
    """Markdown from what `model.json` holds."""
    parts = [
        f"# Sentiment model {d['name']}, version {d['version']}",
        "Written by `train-sentiment`; the same figures stand in `model.json`.",
        "## What it is for",
        "The probability that an English film review is positive as a whole, and the words that say so. It was not "
        "made for other kinds of text, for parts of a review, or for decisions about people.",
        "## Data",
        f"{d['provenance']} {d['documents']:,} texts, {d['prior']:.1%} of them positive; {d['duplicates']:,} are "
        "repeats of another. No text is part of the model; its n-grams are quotations of up to three words.",
        "## Model",
        f"{len_terms(d)} terms: n-grams of one to three tokens (words with their negations, ratings such as 8/10, "
        "punctuation) that occur in at least two texts"
        + (
            f", the {d['parameters']['max_terms']:,} with the greatest |log-count ratio| · √frequency"
            if d["parameters"]["max_terms"]
            else ""
        )
        + ". Feature: binary TF-IDF times the log-count ratio between the classes, at unit length (NBSVM, Wang and "
        "Manning 2012). Logistic regression with L2 penalty; Platt calibration on scores that each text got from a "
        "model trained without it; the margin of a text of n tokens counts n / (n + 11). Parameters: "
        + ", ".join(f"{name} {value}" for name, value in d["parameters"].items())
        + ".",
        "## How good it is",
        "Texts of one group never stand on both sides of a split, nor do repeated texts without a group; a text that "
        "is repeated in another group may."
        if d["grouped"]
        else "Repeated texts never stand on both sides of a split.",
        _measures(d["cross_validation"], d["held_out"]),
        f"Accuracy by fold: {', '.join(f'{100 * a:.2f} %' for a in d['fold_accuracy'])} (each with the others' texts, "
        f"without the held-out part; standard deviation {100 * d['fold_deviation']:.2f}). Reviews of one film stand in "
        "different folds unless the data names a group, so a film's and its actors' names help here; on films that it "
        "never saw, expect about half a point less.",
        _confusion(d["held_out"]),
        "Reliability on the held-out part: of the texts with such a probability, how many are positive.",
        _table(
            ("probability", "texts", "mean probability", "positive"),
            [
                (
                    f"{b['lower']:.1f}-{b['upper']:.1f}",
                    f"{b['texts']:,}",
                    f"{b['probability']:.3f}",
                    f"{b['positive']:.3f}",
                )
                for b in d["held_out"]["reliability"]
            ],
        ),
        "## Short texts",
        f"{d['short']['correct']} of {d['short']['texts']} clear sentences of one to nine words, written for this "
        f"purpose, fall on the right side; {d['short']['confident']} are called confident, "
        f"{d['short']['confident_wrong']} of these wrongly. Of {d['short']['undecidable']} texts that cannot be "
        "decided (empty, emoji, other languages, plain facts) "
        f"{d['short']['undecidable_confident']} are called confident. Mean distance of the probability from 0.5 on "
        f"the clear ones: {d['short']['distance']:.2f}.",
        _table(
            ("sentence", "truth", "probability", "confident"),
            [
                (
                    s["text"].replace("|", "\\|"),
                    s["truth"],
                    f"{s['probability']:.2f}",
                    "yes" if s["confident"] else "",
                )
                for s in d["short"]["sentences"]
            ],
        ),
        "## Most telling terms",
        "Among those in fifty texts and more, what a term adds before normalisation.",
        _table(("positive", "", "negative", ""), _telling(d["telling"])),
        "## Limits",
        "- English only. Texts in other languages, without words or empty get the prior and no judgement.\n"
        "- Irony, and praise of one thing inside a bad review, are read word by word.\n"
        "- Names count: an actor praised in the training texts lends a little probability to a new film.\n"
        "- Ratings between good and bad are left out of training; lukewarm reviews are harder than these figures say.\n"
        "- Only the first 20,000 characters are read.",
    ]
    return "\n\n".join(parts) + "\n"


def len_terms(d: Mapping[str, Any]) -> str:
    return f"{d['terms']:,}"


def _measures(cross: Mapping[str, Any], held: Mapping[str, Any]) -> str:
    def row(name: str, form: str, field: str) -> tuple[str, ...]:
        return (name, *(form.format(**e, value=e[field]) for e in (cross, held)))

    rows = [
        row("texts", "{value:,}", "texts"),
        row("accuracy ± standard error", "{value:.2%} ± {standard_error:.2%}", "accuracy"),
        row("F1", "{value:.4f}", "f1"),
        row("ROC-AUC", "{value:.4f}", "roc_auc"),
        row("Brier score", "{value:.4f}", "brier"),
        row("expected calibration error", "{value:.4f}", "ece"),
        row("called confident (≥ 0.8)", "{value:.1%}", "confident_share"),
        row("accuracy of these", "{value:.2%}", "confident_accuracy"),
    ]
    return _table(("", "cross-validation", "held-out part"), rows)


def _confusion(e: Mapping[str, Any]) -> str:
    return _table(
        ("held-out part", "said positive", "said negative"),
        [
            ("is positive", f"{e['true_positive']:,}", f"{e['false_negative']:,}"),
            ("is negative", f"{e['false_positive']:,}", f"{e['true_negative']:,}"),
        ],
    )


def _telling(telling: Mapping[str, Sequence[Sequence[Any]]]) -> list[tuple[str, ...]]:
    def cells(term: str, weight: float) -> tuple[str, str]:
        return "`{}`".format(term.replace("|", "\\|")), f"{weight:+.2f}"

    sides = ([cells(*pair) for pair in telling[side]] for side in ("positive", "negative"))
    return [(*p, *n) for p, n in zip_longest(*sides, fillvalue=("", ""))]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])
