"""Two Airflow 3 DAGs: score the night's file, then renew the report over all nights.

Copy this file into the DAGs folder. It needs nothing of batchscore's environment but the absolute path of its command, and
batchscore needs nothing of Airflow's. The file sensor uses the connection ``fs_default`` (for absolute paths:
``AIRFLOW_CONN_FS_DEFAULT='{"conn_type": "fs", "extra": {"path": "/"}}'``).

How a night ends, by the exit code of ``batchscore score``:

- 0: success; the JSON summary is the XCom, and the asset ``batchscore_scored`` carries counts and accuracy as extra
- 99: skipped, there was no row
- 75 (held by another run), 74 (disk or network), 1 (a fault), a kill: tried again, later each time, going on where it was
- 65 (bad data), 78 (model or settings), 2, 66 and 73: failed at once, with batchscore's own words
- 3 (a quality gate): all was scored and written, so ``score`` is a success and the report is renewed; the task ``gates`` fails,
  and the night with it
- no file within six hours: the sensor fails

After a night without anything to score for the asset (a failed sensor, a failed ``score``) the report is renewed all the same,
by the task ``report``: it counts days without a run, and says why a night was refused.

Whoever writes the file renames it into place when it is whole: the sensor looks for the name alone.

The date is that of the run, never that of the clock.
"""

from __future__ import annotations

import datetime
import json
import os
from typing import Any

from airflow.providers.standard.sensors.filesystem import FileSensor
from airflow.sdk import Asset, Param, dag, task
from airflow.sdk.exceptions import AirflowFailException

BATCHSCORE = os.environ.get("BATCHSCORE_COMMAND", "/opt/batchscore/.venv/bin/batchscore")
INPUT = os.environ.get("BATCHSCORE_NIGHTLY_INPUT", "/srv/export/reviews-{day}.parquet")
MODEL = os.environ.get("BATCHSCORE_NIGHTLY_MODEL", "/srv/models/reviews")
RUNS = os.environ.get("BATCHSCORE_NIGHTLY_RUNS", "/srv/scored")

DAY = "{{ (dag_run.logical_date or dag_run.run_after) | ds }}"
FILE = "{{ params.input | replace('{day}', (dag_run.logical_date or dag_run.run_after) | ds) }}"
SCORED = Asset("batchscore_scored")
REPORTED = "{{ (triggering_asset_events.values() | first | last).extra.runs if triggering_asset_events else params.runs }}"
GATE_FAILED = 3
RETRIES = {
    "retries": 6,
    "retry_delay": datetime.timedelta(
        seconds=float(os.environ.get("BATCHSCORE_NIGHTLY_RETRY_SECONDS", "60"))
    ),
    "retry_exponential_backoff": True,
    "max_retry_delay": datetime.timedelta(hours=1),
}


def summary_of(last_line: str) -> dict[str, Any]:
    """The JSON that batchscore printed last; a failure that no second try can mend fails the task at once."""
    try:
        summary: dict[str, Any] = json.loads(last_line)
    except ValueError:
        raise AirflowFailException(f"batchscore ended without a summary: {last_line[:500]}") from None
    if (code := summary["exit_code"]) not in {0, GATE_FAILED}:
        raise AirflowFailException(f"batchscore: exit code {code}: {summary['error']}")
    return summary


def note_scored(context: Any, result: Any) -> None:
    """Hang what was scored on the asset's event."""
    kept = (
        "output",
        "rows",
        "rejects",
        "counts",
        "accuracy",
        "micro_f1",
        "mae",
        "mismatches",
        "gates",
        "seconds",
    )
    extra = {name: result[name] for name in kept if name in result}
    context["outlet_events"][SCORED].extra = {**extra, "runs": context["params"]["runs"]}


def once(command: str) -> str:
    """A shell line in which what is worth another try (and 99, the skip) keeps its code; the rest is in the summary."""
    return f'{command}; code=$?; case $code in 2|3|65|66|73|78) exit 0;; *) exit "$code";; esac'


REPORT = once(f'"{BATCHSCORE}" report "$RUNS" --json')


@dag(
    dag_id="batchscore_nightly",
    schedule="30 2 * * *",
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    catchup=False,
    max_active_runs=1,
    default_args=RETRIES,
    tags=["batchscore"],
    doc_md=__doc__,
    params={
        "input": Param(INPUT, type="string", description="File to score; {day} is the date of the run."),
        "model": Param(MODEL, type="string", description="Bundle."),
        "runs": Param(RUNS, type="string", description="Folder of the run folders."),
        "baseline": Param(
            "latest", type="string", description="The run to compare with: latest, a run folder, or nothing."
        ),
        "options": Param("", type="string", description="More options, e.g. --fail-below accuracy=0.85"),
    },
)
def nightly() -> None:
    """Wait for the file, score it, hold it against the gates."""
    wait = FileSensor(
        task_id="wait_for_file",
        filepath=FILE,
        deferrable=True,
        poke_interval=60,
        timeout=6 * 3600,  # is final; what is tried again is a failure of Airflow's own
    )

    @task.bash(
        outlets=[SCORED],
        output_processor=summary_of,
        post_execute=note_scored,
        append_env=True,
        env={
            "INPUT": FILE,
            "MODEL": "{{ params.model }}",
            "RUN": "{{ params.runs }}/" + DAY,
            "DAY": DAY,
            "BASELINE": "{{ params.baseline }}",
            "OPTIONS": "{{ params.options }}",
        },
    )
    def score() -> str:
        return once(
            f'"{BATCHSCORE}" score "$INPUT" --model "$MODEL" --output "$RUN" --date "$DAY" --skip-empty --json '
            '${BASELINE:+--baseline "$BASELINE"} $OPTIONS'
        )

    @task(retries=0)
    def gates(summary: dict[str, Any]) -> None:
        if summary["exit_code"] == GATE_FAILED:
            raise AirflowFailException(summary["error"])

    @task.bash(
        trigger_rule="one_failed",
        output_processor=summary_of,
        append_env=True,
        env={"RUNS": "{{ params.runs }}"},
    )
    def report() -> str:
        return REPORT

    scored = score()
    wait >> scored
    gates(scored)
    [wait, scored] >> report()


@dag(
    dag_id="batchscore_report",
    schedule=[SCORED],
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    catchup=False,
    max_active_runs=1,
    default_args=RETRIES,
    tags=["batchscore"],
    params={"runs": Param(RUNS, type="string", description="Folder of the run folders.")},
)
def report() -> None:
    """Renew the page over all nights; a day that is missing or went wrong stands out there.

    The folder is that of the night that brought this about, wherever its params led; of the params, if somebody did by hand.
    """

    @task.bash(output_processor=summary_of, append_env=True, env={"RUNS": REPORTED})
    def trend() -> str:
        return REPORT

    trend()


nightly()
report()
