"""How fast the page of a review is with 5,000 mismatches, in headless Chromium: ``python tests/review_figures.py [--rows 40000]``.

The texts are as long as film reviews (1,300 characters), the model answers at once. It prints how long the page's server takes to
begin, the first time and later, how long it is from a key to the frame with the next row (with a verdict that is on disk by then,
and without), how long a search takes, and the server's memory.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import browser
import click
import numpy as np
import pandas as pd
from review_by_keys import Page
from review_samples import LABELS, WORDS, scored
from task_models import make_model

os.environ.setdefault("BATCHSCORE_CACHE", "off")
_WORDS_A_TEXT = 240


def long_table(rows: int) -> pd.DataFrame:
    """Rows with texts as long as reviews are; a quarter have the other label than the model will say, more or less."""
    random = np.random.default_rng(1)
    words = np.array(WORDS)[random.integers(0, len(WORDS), (rows, _WORDS_A_TEXT))]
    texts = [f"{' '.join(each)} number {k}" for k, each in enumerate(words)]
    return pd.DataFrame(
        {"id": [f"r{k}" for k in range(rows)], "text": texts, "label": [LABELS[k % 2] for k in range(rows)]}
    )


class Served:
    """The command, serving a run."""

    def __init__(self, run: Path) -> None:
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "batchscore", "review", str(run)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        self.seconds = time.perf_counter() - began

    def megabytes(self) -> int:
        """The most memory that it had so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text("ascii")
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) // 1024

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=10)


def told(name: str, seconds: Sequence[float]) -> None:
    each = np.array(seconds) * 1000
    click.echo(
        f"{name}: median {np.median(each):.0f} ms, 99 % {np.quantile(each, 0.99):.0f} ms, longest {each.max():.0f} ms"
    )


def timed(page: Page, act: Callable[[], object], times: int) -> list[float]:
    page.tab.value("window.seen = []")
    for _ in range(times):
        act()
    return page.seconds()


def search(page: Page, text: str) -> float:
    """Seconds of the request that a search makes."""
    script = f"""(async () => {{ const token = new URLSearchParams(location.search).get('token'), began = performance.now();
      const found = await fetch('/api/rows?count=1&text=' + encodeURIComponent({json.dumps(text)}), {{headers: {{Authorization: 'Bearer ' + token}}}});
      await found.json(); window.took = performance.now() - began; }})()"""
    page.tab.value(f"window.took = 0; {script}; 0")
    while not (took := page.tab.value("window.took")):
        time.sleep(0.01)
    return float(took) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, browser.browsing() as chromium:
        model = make_model(Path(folder) / "model", LABELS)
        run = scored(model, Path(folder), long_table(options.rows), "r.parquet")
        first = Served(run)
        first.end()
        served = Served(run)
        page = Page(chromium, served.address)
        metrics = json.loads((run / "metrics.json").read_bytes())
        index = (run.with_name("run.review") / "index.sqlite").stat().st_size
        click.echo(
            f"{options.rows} rows, {metrics['mismatches']} mismatches; the index has {index / 2**20:.0f} MiB"
        )
        click.echo(f"serving after {first.seconds:.1f} s the first time, {served.seconds:.1f} s later")
        told("next row, moving", timed(page, lambda: page.answer("ArrowRight"), options.times))
        told(
            "next row, after a verdict that is on disk", timed(page, lambda: page.answer("4"), options.times)
        )
        told(
            "search",
            [search(page, text) for text in ["good bad film", "NUMBER 77", "nowhere", "great plot dull"] * 5],
        )
        click.echo(f"the server had {served.megabytes()} MiB at most")
        served.end()


if __name__ == "__main__":
    main()
