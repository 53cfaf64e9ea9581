"""What operators look at: logs for machines, metrics for Prometheus, where an option's value comes from."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from batchscore.cli import main
from batchscore.cli.prometheus import write_metrics
from batchscore.system.terminal import PLAIN, Logs, say, set_up_logs


@pytest.fixture(autouse=True)
def _plain_logs() -> Iterator[None]:
    yield
    set_up_logs(PLAIN)


def samples(path: Path) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(path.read_text("utf-8"))
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_a_log_for_machines_is_an_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs(Logs(0, "json", "abc"))
    say("5 of 9 rows", event="progress", done=5)
    logging.getLogger("batchscore.runs.run").warning("two\nlines \x1b[31m")
    logging.getLogger("batchscore.runs.run").info("not at this verbosity")
    lines = capsys.readouterr().err.splitlines()
    first, second = map(json.loads, lines)
    assert (first["message"], first["done"], first["event"]) == ("5 of 9 rows", 5, "progress")
    assert (second["level"], second["logger"]) == ("WARNING", "batchscore.runs.run")
    assert "\x1b" not in lines[1]
    assert {first["run_id"], second["run_id"]} == {"abc"}


def test_people_read_lines_again_after_machines_have_read(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs(Logs(0, "json", "abc"))
    set_up_logs(PLAIN)
    say("5 of 9 rows", event="progress", done=5)
    assert capsys.readouterr().err == "5 of 9 rows\n"


def test_an_error_is_an_event_with_its_exit_code() -> None:
    result = CliRunner().invoke(main, ["verify", "/nowhere/at/all", "--log-format", "json"])
    event = json.loads(result.stderr)
    assert result.exit_code == event["exit_code"] == 66
    assert event["event"] == "error"
    assert len(event["run_id"]) == 12


def test_metrics_of_a_run(tmp_path: Path) -> None:
    metrics = {
        "counts": {"read": 5, "scored": 4},
        "quality": {"accuracy": {"value": 0.75}, "macro_f1": {"value": 0.5}},
        "calibration": {"ece": 0.25},
        "gates": [{"metric": "accuracy", "passed": False}],
    }
    write_metrics(tmp_path / "run.prom", 3, 1.5, metrics)
    found = samples(tmp_path / "run.prom")
    assert found["batchscore_rows", "scored"] == 4
    assert found["batchscore_accuracy",] == 0.75
    assert found["batchscore_gate_passed", "accuracy"] == 0
    assert found["batchscore_last_exit_code",] == 3
    assert found["batchscore_calibration_error",] == 0.25


def test_metrics_of_a_call_that_failed(tmp_path: Path) -> None:
    path = tmp_path / "run.prom"
    arguments = ["score", str(tmp_path / "none.csv"), "--model", "m", "--output", str(tmp_path / "run")]
    result = CliRunner().invoke(main, [*arguments, "--metrics-file", str(path)])
    assert result.exit_code == 66
    found = samples(path)
    assert found["batchscore_last_exit_code",] == 66
    assert ("batchscore_accuracy",) not in found


def test_each_option_tells_where_it_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "c.toml"
    config.write_text('max-rejects = 5\nprefix = "z_"\ndevice = "cuda"\n', encoding="utf-8")
    monkeypatch.setenv("BATCHSCORE_DEVICE", "cpu")
    monkeypatch.setenv("BATCHSCORE_PREFIX", "e_")
    arguments = ["score", "--show-config", "--config", str(config), "--prefix", "f_"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert 'max-rejects = "5"  (file)' in lines
    assert 'device = "cpu"  (environment)' in lines
    assert 'prefix = "f_"  (flag)' in lines
    assert 'output-format = "same"  (default)' in lines
    assert "model = (not set)  (default)" in lines


def test_show_config_tells_set_from_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHSCORE_LIMIT", "abc")  # wrong, and shown with where it comes from
    arguments = ["score", "--show-config", "--prefix", "", "--label-map", "0=NEG", "--no-text"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0
    shown = dict(line.split(" = ", 1) for line in result.stdout.splitlines())
    options = {
        next(opt for opt in p.opts if opt[:2] == "--")
        for p in main.commands["score"].params
        if p.opts[0][:1] == "-"
    }
    assert {f"--{name}" for name in shown} == options - {"--config", "--show-config", "--dry-run", "--force"}
    assert shown["prefix"] == '""  (flag)'
    assert shown["label-map"] == '["0=NEG"]  (flag)'
    assert shown["no-text"] == "true  (flag)"
    assert shown["no-labels"] == "false  (default)"
    assert shown["max-columns"] == "10000  (default)"
    assert shown["limit"] == '"abc"  (environment)'
    assert shown["slice-column"] == shown["text-column"] == "(not set)  (default)"
    values = [text.rpartition("  (")[0] for text in shown.values()]
    assert all(json.loads(value) is not None for value in values if value != "(not set)")


def test_a_key_that_is_no_option_is_refused_with_the_nearest(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("max-reject = 5\n", encoding="utf-8")
    result = CliRunner().invoke(main, ["score", "--show-config", "--config", str(config)])
    assert result.exit_code == 78
    assert "Did you mean max-rejects?" in result.stderr


def test_the_shell_completes_options() -> None:
    environment = {
        "_BATCHSCORE_COMPLETE": "bash_complete",
        "COMP_WORDS": "batchscore score --max-",
        "COMP_CWORD": "2",
    }
    result = CliRunner().invoke(main, [], env=environment, prog_name="batchscore")
    assert "plain,--max-rejects" in result.stdout.splitlines()


def test_nothing_to_do_is_99_only_when_asked_for(tmp_path: Path) -> None:
    arguments = ["score", str(tmp_path / "none.csv"), "--model", "m", "--output", str(tmp_path / "run")]
    assert CliRunner().invoke(main, arguments).exit_code == 66
    assert CliRunner().invoke(main, [*arguments, "--skip-empty"]).exit_code == 99
    assert not (tmp_path / "run").exists()
