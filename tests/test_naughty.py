"""Hostile strings from an input file to the page, as a user would meet them: texts, labels, ids, columns, file names."""

from __future__ import annotations

import json
from pathlib import Path

import browser
import naughty
import pytest
from click.testing import CliRunner
from test_reports import Page

from batchscore import cli


def file_names() -> list[str]:
    """Naughty strings that a file can be called."""
    texts = (text.replace("/", "\u2044").replace("\0", "") for text in naughty.STRINGS)
    names = [text.encode("utf-8", "ignore").decode() for text in texts]
    return [name for name in names if 0 < len(name.encode()) < 200 and not name.startswith((".", "_"))]


def write(path: Path, start: int, end: int, column: str) -> None:
    """Rows whose every value is naughty; ``column`` is what they are sliced by."""
    strings = naughty.STRINGS
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for k, text in enumerate(strings[start:end], start):
            label = ("POSITIVE", "NEGATIVE", strings[k % len(strings)])[min(k % 5, 2)]
            row = {
                "id": strings[-k - 1],
                "text": f"{text} good",
                "label": label,
                column: strings[(7 * k) % len(strings)],
            }
            file.write(json.dumps(row) + "\n")


@pytest.mark.slow
def test_hostile_strings_arrive_and_do_nothing(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    names, column = file_names(), "<script>window.pwned=1</script>{{7*7}}"
    chosen = [*names[:: len(names) // 6][:6], "not UTF-8: \udce9"]
    places = [tmp_path / "in" / f"{name}.jsonl" for name in chosen]
    share = len(naughty.STRINGS) // len(places) + 1
    for k, path in enumerate(places):
        write(path, k * share, (k + 1) * share, column)
    command = ["score", str(tmp_path / "in"), "--model", str(tiny_bundle), "--output", str(tmp_path / "run")]
    # half of a surrogate pair in a text is a reject, and that is how it should be
    done = CliRunner().invoke(cli.main, [*command, "--slice-column", column, "--max-rejects", "20%"])
    assert done.exit_code == 0, done.output
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_bytes())
    assert metrics["counts"]["read"] == len(naughty.STRINGS)
    assert metrics["counts"]["scored"] > 0.9 * len(naughty.STRINGS)
    slices = {each["value"] for each in metrics["slices"] if each["column"] == column}
    assert len(slices) == 201  # the first 200 values, and the others together
    page = tmp_path / "run" / "report.html"
    text = Page(page.read_text(encoding="utf-8"))
    text.check_harmless()
    assert "{{7*7}}" in text.text
    assert "window.pwned=1" in text.text  # told, not run
    assert page.stat().st_size < 1_000_000
    if browser.CHROMIUM:
        assert {
            f"{look.size} {look.scheme}": look.problems for look in browser.look_at([page]) if look.problems
        } == {}
