"""What models say about scans, as a table, as JSON and as text; with it how far it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from viptt_core.card import RESEARCH_ONLY
from viptt_core.weights import Weights

INTERRUPTED = "not predicted: the work was interrupted."


@dataclass(frozen=True)
class Predictions:
    """What models say about scans.

    Attributes:
        names: The N scans as they were named.
        weights: The M models.
        probabilities: float64 [M, N, K]; nan for a scan that could not be read.
        warnings: Of each scan: how it is unlike what the models were trained on.
        errors: Of each scan: why it could not be read; "" for all others.
        notes: About the models, whatever the scan.
    """

    names: tuple[str, ...]
    weights: tuple[Weights, ...] = field(repr=False)
    probabilities: np.ndarray = field(repr=False)
    warnings: tuple[tuple[str, ...], ...] = field(repr=False)
    errors: tuple[str, ...] = field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.weights[0].classes

    @property
    def failed(self) -> np.ndarray:
        """Scans that could not be read, bool [N]."""
        return np.array([bool(error) for error in self.errors])

    @property
    def interrupted(self) -> bool:
        """Whether the work ended early."""
        return INTERRUPTED in self.errors

    def table(self, model: int = 0) -> pd.DataFrame:
        """What one model says: scan, class, a probability a class, entropy_bits, warnings, error, notice.

        The entropy is 0 for a model that is sure, log2 K for one that has no idea. It says nothing about
        whether the model is right, nor whether it should have been asked.
        """
        probabilities = self.probabilities[model]
        rows = pd.DataFrame(probabilities, columns=list(self.class_names)).round(6)
        classes = [
            "" if failed else self.class_names[k]
            for failed, k in zip(self.failed, probabilities.argmax(axis=1), strict=True)
        ]
        rows.insert(0, "class", classes)
        rows.insert(0, "scan", list(self.names))
        return rows.assign(
            entropy_bits=entropy_bits(probabilities).round(4),
            warnings=["; ".join(w) for w in self.warnings],
            error=list(self.errors),
            notice=RESEARCH_ONLY,
        )

    def to_dict(self, model: int = 0) -> dict[str, Any]:
        """The same, and what the model is, as a plain dictionary for JSON."""
        weights, scans = self.weights[model], []
        for n, row in enumerate(self.table(model).to_dict("records")):
            failed = bool(self.errors[n])
            scans.append(
                {
                    "scan": row["scan"],
                    "status": "failed" if failed else "ok",
                    "class": row["class"] or None,
                    "probabilities": None if failed else {name: row[name] for name in self.class_names},
                    "entropy_bits": None if failed else row["entropy_bits"],
                    "warnings": list(self.warnings[n]),
                    "error": row["error"] or None,
                }
            )
        return {
            "notice": RESEARCH_ONLY,
            "notes": list(self.notes),
            "classes": list(self.class_names),
            "weights": {"file": weights.path.name, "sha256": weights.sha256, "about": weights.card.about},
            "preprocessing": weights.card.to_dict()["preprocessing"],
            "scans": scans,
        }

    def __str__(self) -> str:
        shown = self.table().drop(columns=["warnings", "error", "notice"])
        lines = [shown.round(3).to_string(index=False, na_rep="-")]
        for name, warnings, error in zip(self.names, self.warnings, self.errors, strict=True):
            lines += [f"{name}: failed: {error}"] if error else [f"{name}: {warning}" for warning in warnings]
        return "\n".join([*lines, *self.notes, RESEARCH_ONLY])

    def _repr_html_(self) -> str:
        shown = self.table().drop(columns=["notice"]).round(3)
        html = shown.to_html(index=False, border=0, classes="table", na_rep="")
        return f'<div style="overflow-x:auto">{html}</div><p>{" ".join([*self.notes, RESEARCH_ONLY])}</p>'


def entropy_bits(probabilities: np.ndarray) -> np.ndarray:
    """Shannon entropy over the last axis, in bits; nan stays nan."""
    return -(probabilities * np.log2(np.where(probabilities == 0, 1, probabilities))).sum(axis=-1) + 0.0
