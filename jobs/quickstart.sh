#!/usr/bin/env bash
# From a fresh clone to a trained model, two scored files and a first report.
# Installs into .venv, writes into quickstart-output/ (or the folder given). Safe to run again.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-quickstart-output}
source jobs/venv.sh
prepare_venv demo,review

began=$SECONDS
mkdir -p "$out"
"$VENV_BIN/python" -m batchscore.samples "$out/reviews" >/dev/null
if ! "$VENV_BIN/batchscore" verify -q "$out/model" 2>/dev/null; then
  # The classic exercise: a new head on a frozen base, a minute on two cores. --recipe full (the default) is more exact, and slower.
  echo "Training on the sample reviews ..."
  "$VENV_BIN/batchscore-train" --data "$out/reviews/train.parquet" --output "$out/model" --force \
    --recipe head --pooling mean --epochs 40 --learning-rate 5e-3 --max-length 224 --long-text head-tail
fi
echo
for format in parquet csv; do
  echo "Scoring $out/reviews/reviews.$format"
  "$VENV_BIN/batchscore" score "$out/reviews/reviews.$format" --model "$out/model" --output "$out/run-$format" --force
  echo
done
echo "Done in $((SECONDS - began)) s. Look at:"
echo "  $out/run-parquet/report.html       the report"
echo "  $out/run-parquet/predictions/      every row with its prediction"
echo "  $out/run-parquet/mismatches.csv    rows whose label and prediction differ, those worth checking first on top"
echo "  $out/model/README.md               the model card"
echo "Review its rows in a browser, and train on what you find:"
echo "  $VENV_BIN/batchscore review $out/run-parquet"
echo "  $VENV_BIN/batchscore-train --data $out/reviews/train.parquet --corrections $out/run-parquet --output $out/model-2"
