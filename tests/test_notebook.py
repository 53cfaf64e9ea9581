"""Five lines in a notebook, and what the README of the interface shows, run as they stand."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import CHROMIUM, Browser
from conftest import run_score
from nbclient import NotebookClient

import batchscore
from batchscore import samples
from batchscore.api.page import Page
from batchscore.config import ComputeSettings
from batchscore.system.storage import sha256_of

FP32 = ComputeSettings(precision="fp32")
README = Path(batchscore.__file__).parent / "api" / "README.md"


def python_blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a kernel of this very Python."""
    folder = tmp_path / "jupyter" / "kernels" / "here"
    folder.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "here", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("BATCHSCORE_PRECISION", "fp32")  # in the kernel too
    return "here"


def executed(cells: list[str], kernel: str, folder: Path) -> Any:
    """The notebook of these cells after it was run in ``folder``."""
    v4: Any = nbformat.v4
    notebook = v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in cells])
    return NotebookClient(
        notebook, timeout=300, kernel_name=kernel, resources={"metadata": {"path": folder}}
    ).execute()


def shown(cell: Any, kind: str = "text/html") -> str:
    """What a cell shows."""
    (found,) = [each["data"][kind] for each in cell["outputs"] if kind in each.get("data", {})]
    return str(found)


@pytest.mark.slow
def test_five_lines_in_a_notebook_give_the_bytes_of_the_command_line(
    kernel: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    data = pd.DataFrame(samples.load("test")).head(20)
    data.to_parquet(tmp_path / "pandas.parquet")
    pl.from_pandas(data).write_parquet(tmp_path / "polars.parquet")
    pq.write_table(pa.Table.from_pandas(data), tmp_path / "arrow.parquet")
    cells = [f"bundle = {str(tiny_bundle)!r}\nimport asyncio; assert asyncio.get_running_loop().is_running()"]
    for name, read in (
        ("pandas", "import pandas; data = pandas.read_parquet('pandas.parquet')"),
        ("polars", "import polars; data = polars.read_parquet('polars.parquet')"),
        ("arrow", "import pyarrow.parquet; data = pyarrow.parquet.read_table('arrow.parquet')"),
    ):
        cells += [
            f"import batchscore\n{read}\nrun = batchscore.score(data, bundle, 'ours-{name}')\nrun",
            "assert run.predictions.to_pandas()['predicted_label'].notna().any()\nrun.report",
        ]
    done = executed(cells, kernel, tmp_path).cells
    for number, name in enumerate(("pandas", "polars", "arrow")):
        run_score(tmp_path / f"{name}.parquet", tiny_bundle, tmp_path / "theirs" / name, compute=FP32)
        theirs = tmp_path / "theirs" / name / "predictions" / f"{name}.parquet"
        ours = tmp_path / f"ours-{name}" / "predictions" / "table.parquet"
        assert sha256_of(ours) == sha256_of(theirs)
        assert "accuracy" in shown(done[1 + 2 * number])
        assert shown(done[2 + 2 * number]).startswith("<iframe srcdoc=")
    streams = [each["text"] for cell in done for each in cell["outputs"] if each["output_type"] == "stream"]
    assert any("20/20" in text for text in streams)  # the bar


@pytest.mark.slow
def test_the_example_in_the_readme_runs_as_it_stands(kernel: str, tiny_bundle: Path, tmp_path: Path) -> None:
    pd.DataFrame(samples.load("test")).head(40).to_csv(tmp_path / "reviews.csv", index=False)
    (tmp_path / "model").symlink_to(tiny_bundle)
    blocks = python_blocks(README.read_text("utf-8"))
    assert len(blocks) >= 2
    (top,) = python_blocks((Path(batchscore.__file__).parents[1] / "README.md").read_text("utf-8"))
    done = executed([*blocks, top], kernel, tmp_path).cells
    assert "accuracy" in shown(done[0])
    assert shown(done[-1]).startswith("<iframe srcdoc=")


PAGE = (
    '<!doctype html><html lang="en"><head><meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
    "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\"><style>#place {display: none} "
    '#place:target {display: block}</style></head><body><a id="link" href="#place">go</a><p id="place">here</p></body></html>'
)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no browser")
def test_a_link_within_the_page_stays_within_its_frame(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(PAGE, encoding="utf-8")
    host = tmp_path / "host.html"
    host.write_text(f"<!doctype html>{Page(tmp_path / 'report.html')._repr_html_()}", encoding="utf-8")
    browser = Browser(tmp_path / "profile")
    try:
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        browser.call("Page.enable", session)
        browser.call(
            "Target.setAutoAttach", session, autoAttach=True, waitForDebuggerOnStart=False, flatten=True
        )
        browser.call("Page.navigate", session, url=host.as_uri())
        browser.wait_for("Page.loadEventFired")
        frame = next(
            event["params"]["sessionId"]
            for event in browser.events
            if event["method"] == "Target.attachedToTarget"
            and event["params"]["targetInfo"]["type"] == "iframe"
        )
        script = {
            "click": "document.getElementById('link').click()",
            "place": "location.href + ' ' + getComputedStyle(document.getElementById('place')).display",
        }
        for step in ("click", "place"):  # there are no timers where no script may run
            time.sleep(1)
            found = browser.call("Runtime.evaluate", frame, expression=script[step])["result"]
        assert found["value"] == "about:srcdoc#place block"
    finally:
        browser.close()
