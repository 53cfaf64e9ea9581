#!/usr/bin/env bash
# Check and measure batchscore on a machine with a CUDA GPU, in under eight minutes from bare: answers against the CPU's, a forced
# lack of memory, token budgets, precisions, reviews a second beside others, how long the device waits.
#
#   bash jobs/gpu_check.sh                                   # installs into .venv-gpu, results in gpu-check/ (or $OUT)
#   bash jobs/gpu_check.sh --wheels DIR                      # without a network: everything that pip needs lies in DIR
#   bash jobs/gpu_check.sh --python PYTHON                   # an environment that has torch with CUDA and all the rest
#   bash jobs/gpu_check.sh --python PYTHON --wheels DIR      # one that has torch; the wheels in DIR are added, nothing else
#   bash jobs/gpu_check.sh --dry                             # no GPU: do the steps run at all? (tiny models, seconds)
#
# Other options go to jobs/gpu_check.py: --output, --data, --steps, --seconds. It exits with 1 if a check failed.
# DIR is filled on a machine with a network, of the same Python and system:
#   pip wheel -w DIR -c tests/constraints.txt . 'setuptools>=77'
# Of PyPI's wheels for Linux those of torch have CUDA; another index is named in PIP_EXTRA_INDEX_URL.
set -euo pipefail
limit=470 # seconds for everything, the installation included

wheels='' python='' options=()
while [ $# -gt 0 ]; do
  case $1 in
    --wheels | --python)
      [ $# -gt 1 ] || { echo "$1 needs a value" >&2 && exit 2; }
      [ -e "$2" ] || { echo "$1 $2: there is no such file or folder" >&2 && exit 2; }
      if [ "$1" = --wheels ]; then wheels=$(realpath "$2"); else python=$(realpath -s "$2"); fi # -s: a venv's python is a link
      shift 2
      ;;
    --output | --data) # seen from where the caller is
      [ $# -gt 1 ] || { echo "$1 needs a value" >&2 && exit 2; }
      options+=("$1" "$(realpath -m "$2")")
      shift 2
      ;;
    *)
      options+=("$1")
      shift
      ;;
  esac
done
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ -z "$python" ]; then
  source jobs/venv.sh
  if [ -n "$wheels" ]; then export PIP_NO_INDEX=1 PIP_FIND_LINKS=$wheels; fi
  VENV=.venv-gpu prepare_venv ''
  python=$VENV_BIN/python
elif [ -n "$wheels" ]; then
  added=$(mktemp -d)
  trap 'rm -rf "$added"' EXIT
  "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --target "$added" "$wheels"/*.whl
  export PYTHONPATH=$added${PYTHONPATH:+:$PYTHONPATH}
fi
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} OUT=${OUT:-$PWD/gpu-check}
left=$((limit - SECONDS))
"$python" jobs/gpu_check.py --seconds "$((left > 60 ? left : 60))" "${options[@]}"
