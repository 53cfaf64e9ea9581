"""Review rows through the real page in headless Chromium, by keys alone, as somebody would who knows the answers.

``python tests/review_by_keys.py --address URL --truth FILE --rows 200`` takes the first 200 rows that ``batchscore review`` shows,
looks each id up in FILE (CSV or Parquet with ``id`` and ``label``), presses the key, and waits until the page says that the verdict is
saved. ``--label-map 0=NEGATIVE 1=POSITIVE`` says what labels in FILE are called by the model. It prints what it answered, and how long
the next row took to be seen.
"""

from __future__ import annotations

import argparse
import collections
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import browser
import click
import numpy as np
import pandas as pd
from browser import Browser, Tab

from batchscore.model.labels import label_key, parse_label_map

KEY_CODES = {"ArrowLeft": 37, "ArrowRight": 39, "Enter": 13, "Escape": 27, "ArrowDown": 40, "Tab": 9}
_WAIT_SECONDS = 30.0
_STATE = """(() => { const at = id => document.getElementById(id), shown = id => at(id).hidden ? null : at(id).textContent;
  return {key: at('row').hidden ? null : at('row').dataset.key, id: shown('id-part') && at('id').textContent, given: at('given').textContent,
    predicted: at('predicted').textContent, busy: !!document.body.dataset.busy, ready: !!document.body.dataset.ready,
    reviewed: Number(at('progress').dataset.reviewed), trouble: shown('trouble'), status: at('status').textContent, said: shown('said'),
    tab: document.querySelector('[aria-pressed=true]').id, text: at('text-1').textContent}; })()"""
_WATCH = """(() => { window.seen = []; let began = 0;
  document.addEventListener('keydown', () => { began = performance.now(); }, true);
  new MutationObserver(() => requestAnimationFrame(() => { if (began) window.seen.push(performance.now() - began); began = 0; }))
    .observe(document.getElementById('row'), {attributes: true, attributeFilter: ['data-key']}); })()"""
"""Notes how long it is from a key to the frame that shows another row."""


class Page:
    """The page of a review in one tab."""

    def __init__(self, chromium: Browser, address: str, size: str = "desktop") -> None:
        self.tab = Tab(chromium, address, size, "light")
        self.wait(lambda state: bool(state["ready"]), "the first row")
        self.tab.value(_WATCH)

    @property
    def state(self) -> dict[str, Any]:
        """What the page shows."""
        found: dict[str, Any] = self.tab.value(_STATE)
        return found

    def wait(self, is_there: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Wait until the page is as it should be; returns what it shows then."""
        end = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < end:
            if is_there(state := self.state):
                return state
            time.sleep(0.005)
        raise TimeoutError(f"{what} did not come; the page shows {self.state}")

    def press(self, *keys: str) -> None:
        """Press keys one after the other."""
        for key in keys:
            is_sign = len(key) == 1
            text = key if is_sign else "\r" if key == "Enter" else ""
            self.tab.press(key, ord(key.upper()) if is_sign else KEY_CODES[key], text=text)

    def answer(self, *keys: str) -> dict[str, Any]:
        """Press the keys of an answer, and wait until it is saved and another row, or none, is there."""
        before = self.state
        self.press(*keys)
        return self.wait(
            lambda now: not now["busy"] and (now["key"] != before["key"] or now["trouble"] is not None),
            "the next row",
        )

    def seconds(self) -> list[float]:
        """How long each next row took to be seen."""
        found: list[float] = self.tab.value("window.seen")
        return [each / 1000 for each in found]


def keys_for(state: dict[str, Any], truth: str | None) -> tuple[str, ...]:
    """The keys of an answer to a row whose right label this is; None if nobody knows it."""
    if truth is None:
        return ("4",)
    if truth == state["given"]:
        return ("1",)
    return ("2",) if truth == state["predicted"] else ("3", *truth.partition(" ")[0], "Enter")


class Reviewed(NamedTuple):
    """What was answered."""

    keys: dict[str, int]
    """Times that each key was pressed first."""
    seconds: list[float]
    """From a key to the frame with the next row."""


def review(page: Page, truth: Callable[[str], str | None], rows: int) -> Reviewed:
    """Answer so many rows, by their ids."""
    pressed: collections.Counter[str] = collections.Counter()
    for _ in range(rows):
        state = page.state
        if state["key"] is None:
            break
        keys = keys_for(state, truth(state["id"]))
        after = page.answer(*keys)
        if after["trouble"] is not None:
            raise RuntimeError(after["trouble"])
        pressed[keys[0]] += 1
    return Reviewed(dict(pressed), page.seconds())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--address", required=True, help="as batchscore review printed it")
    parser.add_argument("--truth", required=True, type=Path, help="CSV or Parquet with id and label")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--label-map", nargs="*", default=[], metavar="GIVEN=LABEL")
    options = parser.parse_args()
    read = pd.read_csv if options.truth.suffix == ".csv" else pd.read_parquet
    table = read(options.truth)
    called = parse_label_map(options.label_map)
    names = [called.get(label_key(value), str(value)) for value in table["label"]]
    labels = dict(zip(table["id"].astype(str), names, strict=True))
    with browser.browsing() as chromium:
        found = review(Page(chromium, options.address), labels.get, options.rows)
    told = np.array(found.seconds) * 1000
    figures = {"median": np.median(told), "99 %": np.quantile(told, 0.99), "longest": told.max()}
    milliseconds = {name: round(float(value), 1) for name, value in figures.items()}
    click.echo(
        json.dumps({"rows": sum(found.keys.values()), "keys": found.keys, "milliseconds": milliseconds})
    )


if __name__ == "__main__":
    main()
