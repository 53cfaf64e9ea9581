#!/usr/bin/env bash
# Everything that CI checks: installs what tests need into .venv, then lint, types, import levels and tests.
# Arguments go to pytest: bash tests/run.sh -k batching
# Where CI is set in the environment, the DAGs are run in a real Airflow too (tests/airflow.sh), beside the tests.
set -euo pipefail
cd "$(dirname "$0")/.."
# .venv comes uncompiled: a module is compiled once, and not in each of the hundreds of processes that import it.
unset PYTHONDONTWRITEBYTECODE
source jobs/venv.sh
beside=() # processes that run beside the others, and end with them
folders=()
end() {
  for process in "${beside[@]}"; do
    pkill -P "$process" || true
    kill "$process" || true
  done 2>/dev/null
  rm -rf "${folders[@]}"
}
trap end EXIT
if [ -n "${CI-}" ]; then
  said=$(mktemp -d)
  folders+=("$said")
  bash tests/airflow.sh --install >"$said/install" 2>&1 &
  beside+=($!)
fi
prepare_venv demo,test

# Runs sync all that they write, which takes milliseconds on a disk and none in memory. What a kill or a loss of power leaves is
# simulated in either (tests/crashing.py). The name is short, as paths of sockets are.
pytest=("$VENV_BIN/pytest" -n 3 --dist worksteal --durations 15)
room=$(df --output=avail -B1G /dev/shm 2>/dev/null | tail -n 1) || room=0
memory=$(awk '$1 == "MemAvailable:" {print int($2 / 1048576)}' /proc/meminfo 2>/dev/null) || memory=0
if [ -z "${TMPDIR-}" ] && [ "${room:-0}" -ge 8 ] && [ "${memory:-0}" -ge 12 ]; then
  TMPDIR=$(mktemp -d /dev/shm/tests.XXXXXX)
  export TMPDIR
  folders+=("$TMPDIR")
  pytest+=(-o tmp_path_retention_policy=failed) # no more of it than a test needs
fi

export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1
check_code() {
  "$VENV_BIN/ruff" check .
  "$VENV_BIN/ruff" format --check .
  "$VENV_BIN/mypy"
  "$VENV_BIN/lint-imports" --config setup.cfg
}
if [ -z "${CI-}" ]; then
  check_code
  "${pytest[@]}" "$@"
  exit
fi
wait_for_first() { # of those beside; what it said is in $said/$1
  local code=0
  wait "${beside[0]}" || code=$?
  beside=("${beside[@]:1}")
  cat "$said/$1"
  [ "$code" -eq 0 ] || exit "$code"
}
wait_for_first install
(set -e; check_code) >"$said/code" 2>&1 &
beside+=($!)
# What three workers would each compile at once is compiled beside the checks.
"$VENV_BIN/pytest" --collect-only --quiet >/dev/null
bash tests/airflow.sh >"$said/airflow" 2>&1 &
beside+=($!)
"${pytest[@]}" "$@"
wait_for_first code
wait_for_first airflow
