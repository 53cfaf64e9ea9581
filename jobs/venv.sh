# Sourced by jobs/quickstart.sh, jobs/gpu_check.sh, tests/run.sh and tests/airflow.sh: a virtual environment in .venv (or $VENV) with what EXTRAS
# name, made once. Sets VENV_BIN. A second call with nothing changed takes no time.

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "Python 3.11 or newer is needed and was not found; name one with PYTHON=/path/to/python3" >&2
  return 69
}

renew_pip() { # PYTHON: the pip that comes with Python 3.11 takes twice the time to choose among many versions
  "$1" -m pip install --quiet --disable-pip-version-check --upgrade pip || echo "pip stays as it is" >&2
}

prepare_venv() { # EXTRAS
  local extras=$1 venv=${VENV:-.venv} python wanted stamp
  VENV_BIN=$PWD/$venv/bin
  stamp=$venv/.installed-${extras//,/-}
  wanted=$(cat setup.cfg pyproject.toml tests/constraints.txt batchscore/__init__.py | cksum)
  if [ -x "$VENV_BIN/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    return
  fi
  python=$(find_python) || return
  echo "Installing into $venv (a few minutes the first time) ..." >&2
  [ -x "$VENV_BIN/python" ] || "$python" -m venv "$venv"
  renew_pip "$VENV_BIN/python"
  # a module is compiled when it is first imported: to compile all that packages bring takes minutes
  "$VENV_BIN/python" -m pip install --quiet --no-compile --disable-pip-version-check -c tests/constraints.txt -e ".${extras:+[$extras]}"
  echo "$wanted" >"$stamp"
}
