"""What a finished run folder holds, as arrays: for scripts that take figures from it without scoring anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from batchscore.model.labels import GivenLabels, LabelNames
from batchscore.records import Predictions, Status


class Scored(NamedTuple):
    """Labelled and scored rows of a run, in order: ``given[n]`` and ``predictions`` of ``n`` rows."""

    facts: dict[str, Any]
    metrics: dict[str, Any]
    labels: tuple[str, ...]
    given: NDArray[np.int64]
    predictions: Predictions

    def rows(self, chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], Predictions]:
        """Some of the rows, as an evaluation takes them."""
        p = self.predictions
        predictions = Predictions(
            status=p.status[chosen],
            predicted=p.predicted[chosen],
            probabilities=p.probabilities[chosen],
            n_tokens=p.n_tokens[chosen],
            truncated=p.truncated[chosen],
        )
        return self.given[chosen], predictions


def read_run(run: Path) -> Scored:
    """Read a run whose predictions are Parquet."""
    facts, metrics = (json.loads((run / name).read_bytes()) for name in ("run.json", "metrics.json"))
    labels, options = tuple(facts["model"]["labels"]), facts["options"]
    names, prefix = LabelNames(labels, options["label_map"]), options["prefix"]
    by_name, by_id = (GivenLabels(names, reading) for reading in ("names", "ids"))
    pieces = []
    for file in facts["files"]:
        (path,) = (run / "predictions").glob(f"{file['name'].rpartition('.')[0]}.parquet")
        found = pd.read_parquet(path)
        values = found[file["columns"]["label"]]
        found["given"] = [max(by_name.index(value), by_id.index(value)) for value in values]
        pieces.append(found[(found.given >= 0) & (found[f"{prefix}status"] == "ok")])
    rows = pd.concat(pieces, ignore_index=True)
    probabilities = rows[[f"{prefix}prob_{label}" for label in labels]].to_numpy(np.float32)
    predictions = Predictions(
        status=np.full(len(rows), Status.OK, dtype=np.int8),
        predicted=rows[f"{prefix}predicted_label"].map(labels.index).to_numpy(np.int32),
        probabilities=probabilities,
        n_tokens=rows[f"{prefix}n_tokens"].to_numpy(np.int32),
        truncated=rows[f"{prefix}truncated"].to_numpy(np.bool_),
    )
    return Scored(facts, metrics, labels, rows.given.to_numpy(np.int64), predictions)
