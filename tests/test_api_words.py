"""What the Python interface says and shows: messages about tables, names with signs in them, links of the page in a frame."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import batchscore
from batchscore.api.data import files_of, splits_of
from batchscore.api.page import Page
from batchscore.errors import BatchscoreError, DataError, printable

pytestmark = pytest.mark.usefixtures("quick_runs")
DATA = pd.DataFrame(
    {"text": ["Good.", "Bad."], "c=d": ["1", "2"], 'q"=': ["3", "4"], "label": ["pos", "neg"]}
)


def test_names_may_have_the_sign_that_divides_the_two(tiny_bundle: Path) -> None:
    run = batchscore.score(DATA, tiny_bundle, rename={"c=d": "e", 'q"=': "f=g", "text": "t"}, quiet=True)
    assert run.predictions.column_names[:4] == ["t", "e", "f=g", "label"]
    mapped = batchscore.score(
        DATA.assign(label=["p=q", "n"]),
        tiny_bundle,
        label_map={"p=q": "POSITIVE", "n": "NEGATIVE"},
        quiet=True,
    )
    assert mapped.metrics["counts"]["labelled"] == 2


def test_messages_name_the_table_and_not_its_file(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^data has no column txt \(--text-column\)"):
        batchscore.score(DATA, tiny_bundle, text_column="txt")
    with pytest.raises(DataError, match=r"^data already has status"):
        batchscore.score(DATA.assign(status=1), tiny_bundle, tmp_path / "run")
    with pytest.raises(BatchscoreError) as caught:
        batchscore.train(DATA, tmp_path / "model", eval_data=DATA.drop(columns="text"), quiet=True)
    assert "eval_data" in str(caught.value)
    assert ".parquet" not in str(caught.value)


def test_names_of_splits_and_no_longer_than_they_are_there(tmp_path: Path) -> None:
    files = splits_of({"train": DATA, "test": DATA}, tmp_path / "data")
    (folder,) = map(Path, files.arguments)
    with files.there():
        assert printable(folder / "test.parquet") == "data['test']"
        assert printable(folder) == "data"
    assert printable(folder) == str(folder)
    with pytest.raises(ValueError, match="mine"), files_of(DATA, tmp_path / "data").there():
        raise ValueError("mine")
    assert printable(tmp_path / "data" / "table.parquet").startswith(str(tmp_path))


def test_links_to_files_are_plain_text_in_a_frame(tiny_bundle: Path) -> None:
    run = batchscore.score(DATA, tiny_bundle, quiet=True)
    page, shown = run.report.path.read_text("utf-8"), run.report._repr_html_()
    assert 'href="mismatches.csv"' in page
    assert page.count('href="#') == shown.count("href=&quot;#") > 0
    assert shown.count("href=") - 1 == shown.count("href=&quot;#")  # but for the base
    assert "mismatches.csv" in shown


def test_links_elsewhere_stay(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(
        '<head></head><a href="https://example.org/">out</a> <a class="x" href="../a%20b.csv"><bdi>a b</bdi></a>'
        '<a class="night" href="../2026-11-01/report.html"></a><a href="#x">in</a>',
        encoding="utf-8",
    )
    shown = Page(page)._repr_html_()
    assert "&lt;a href=&quot;https://example.org/&quot;&gt;out&lt;/a&gt; &lt;bdi&gt;a b&lt;/bdi&gt;" in shown
    assert "2026-11-01" not in shown
    assert "&lt;a href=&quot;#x&quot;&gt;in&lt;/a&gt;" in shown
