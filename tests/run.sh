#!/usr/bin/env bash
# Everything that CI checks: installs what tests need into .venv, then lint, types, import levels and tests.
# Arguments go to pytest: bash tests/run.sh -k batching
# Where CI is set in the environment, the DAGs are run in a real Airflow too (tests/airflow.sh, two more minutes).
set -euo pipefail
cd "$(dirname "$0")/.."
source jobs/venv.sh
prepare_venv demo,test
if [ -n "${CI-}" ]; then bash tests/airflow.sh --install & fi  # while the rest is checked

export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1
check_code() {
  "$VENV_BIN/ruff" check .
  "$VENV_BIN/ruff" format --check .
  "$VENV_BIN/mypy"
  "$VENV_BIN/lint-imports" --config setup.cfg
}
checking=
if [ -n "${CI-}" ]; then  # beside the tests, which wait for the disk a third of their time
  (set -e; check_code) &
  checking=$!
else
  check_code
fi
"$VENV_BIN/pytest" -n 3 --dist worksteal --durations 15 "$@"
if [ -n "$checking" ]; then
  wait "$checking"
  wait
  bash tests/airflow.sh
fi
