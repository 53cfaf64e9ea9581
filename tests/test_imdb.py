"""The main job on real reviews, with a tiny model so that it takes seconds."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from conftest import run_score

from batchscore.runs.inspection import verify


@pytest.mark.slow
def test_real_reviews_arrive_in_order_with_equal_answers_from_both_formats(
    imdb: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    reviews = pd.read_parquet(imdb / "test.parquet").head(2 * 2048 + 500)
    some = reviews.head(2048)  # a whole part: other micro-batches have other last bits
    some.to_csv(tmp_path / "test.csv", index=False)
    reviews.to_parquet(tmp_path / "test.parquet")
    for path, output, rows in ((tmp_path / "test.parquet", "a", reviews), (tmp_path / "test.csv", "b", some)):
        result = run_score(path, tiny_bundle, tmp_path / output)
        assert (result.rows, result.rejects) == (len(rows), 0)
        assert verify(tmp_path / output)["kind"] == "run"
    one = pd.read_parquet(tmp_path / "a" / "predictions" / "test.parquet")
    two = pd.read_csv(tmp_path / "b" / "predictions" / "test.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(one[reviews.columns], reviews)
    pd.testing.assert_frame_equal(two[reviews.columns], some, check_dtype=False)
    added = [name for name in one.columns if name not in reviews.columns]
    for name in added:
        assert (one[name].head(len(two)) == two[name].astype(one[name].dtype)).all(), name
    assert (one["status"] == "ok").all()


def test_metrics_of_real_reviews_are_those_of_an_oracle(
    imdb: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    from sklearn.metrics import accuracy_score, confusion_matrix, log_loss

    result = run_score(imdb / "test.parquet", tiny_bundle, tmp_path / "run", limit=800)
    scored = pd.read_parquet(tmp_path / "run" / "predictions" / "test.parquet")
    assert len(scored) == 800
    quality = result.metrics["quality"]
    predicted = (scored.predicted_label == "POSITIVE").astype(int)
    assert quality["accuracy"]["value"] == pytest.approx(accuracy_score(scored.label, predicted), abs=1e-12)
    assert quality["confusion_matrix"]["counts"] == confusion_matrix(scored.label, predicted).tolist()
    loss = log_loss(scored.label, scored[["prob_NEGATIVE", "prob_POSITIVE"]].astype("float64"))
    assert quality["log_loss"] == pytest.approx(loss, abs=1e-6)
    mismatches = pd.read_parquet(tmp_path / "run" / "mismatches.parquet")
    assert len(mismatches) == (scored.label != predicted).sum() == result.metrics["mismatches"]
    assert mismatches.label_quality.is_monotonic_increasing
    back = scored.iloc[mismatches.row]
    assert mismatches.id.tolist() == back.id.tolist()
    assert mismatches.text.tolist() == back.text.tolist()
