"""Which columns predictions hold and what they are called, in every format; and an earlier run whose columns were chosen."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from conftest import run_score
from flow import flow
from pyarrow import orc
from task_models import answering_at_once, several_labels, without_page

from batchscore.cli.output_options import names_of, renames_of
from batchscore.config import ReadSettings
from batchscore.errors import DataError, UsageError
from batchscore.formats.registry import NAMES, suffix_of
from batchscore.system.terminal import NOTICE

COLUMNS: dict[str, list[str | None]] = {
    "id": ["007", "12345678901234567890", "Ä,1", "x\ny"],
    "text": ["fine", "bad", None, 'a "quote"; and more'],
    "day, month": ["1.10", "", "2,5", "z"],
    "label": ["NEGATIVE", "POSITIVE", "NEGATIVE", None],
}
NO_LABELS = ReadSettings(label_column="")
ADDED = [
    "predicted_label",
    "probability",
    "prob_NEGATIVE",
    "prob_POSITIVE",
    "n_tokens",
    "truncated",
    "status",
]


def write(folder: Path, kind: str) -> Path:
    """The same rows in a format."""
    path = folder / f"a{suffix_of(kind)}"
    table = pa.table(COLUMNS)
    rows = table.to_pylist()
    if kind == "parquet":
        pq.write_table(table, path)
    elif kind == "arrow":
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    elif kind == "orc":
        orc.write_table(table, path)
    elif kind == "xlsx":
        pd.DataFrame(COLUMNS).to_excel(path, index=False)
    elif kind == "csv":
        pd.DataFrame(COLUMNS).to_csv(path, index=False, sep=";")
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a prediction file as its format's own reader has them; no value as an empty text, since CSV has nothing else."""
    suffix = path.suffix
    if suffix == ".parquet":
        rows = pq.read_table(path).to_pylist()
    elif suffix == ".arrow":
        rows = pa.ipc.open_file(path).read_all().to_pylist()
    elif suffix == ".orc":
        rows = orc.read_table(path).to_pylist()
    elif suffix == ".xlsx":
        table = pd.read_excel(path, dtype=str, keep_default_na=False, engine="calamine")
        rows = [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
    elif suffix == ".csv":
        text = path.read_text(encoding="utf-8")
        rows = list(
            csv.DictReader(io.StringIO(text), delimiter=";" if ";" in text.partition("\n")[0] else ",")
        )
    elif suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    else:
        rows = json.loads(path.read_text(encoding="utf-8"))
    return [{name: "" if value is None else value for name, value in row.items()} for row in rows]


def given(*names: str) -> list[list[str]]:
    return [[value or "" for value in COLUMNS[name]] for name in names]


@pytest.mark.parametrize("target", ["same", *NAMES])
@pytest.mark.parametrize("kind", NAMES)
def test_the_columns_asked_for_are_there_in_every_format(tmp_path: Path, kind: str, target: str) -> None:
    options: dict[str, Any] = {"output_format": target, "probabilities": "top"}
    path = write(tmp_path, kind)
    kept = flow(
        tmp_path / "kept",
        path,
        keep_columns=("day, month", "id"),
        renames={"id": "key", "status": "state"},
        **options,
    )
    rows = read(kept.only)
    # the order is the input's, whatever the order of the names
    assert list(rows[0]) == [
        "key",
        "day, month",
        "predicted_label",
        "probability",
        "n_tokens",
        "truncated",
        "state",
    ]
    assert [[row[name] for row in rows] for name in ("key", "day, month")] == given("id", "day, month")
    assert [row["state"] for row in rows] == [
        "ok",
        "ok",
        "null_text" if kind != "csv" else "empty_text",
        "ok",
    ]

    dropped = flow(tmp_path / "dropped", path, drop_columns=("text",), output_format=target)
    rows = read(dropped.only)
    assert list(rows[0]) == ["id", "day, month", "label", *ADDED]
    assert [[row[name] for row in rows] for name in COLUMNS if name != "text"] == given(
        "id", "day, month", "label"
    )

    none = flow(
        tmp_path / "none", path, drop_columns=tuple(COLUMNS), probabilities="none", output_format=target
    )
    assert list(read(none.only)[0]) == ["predicted_label", "n_tokens", "truncated", "status"]
    assert len(read(none.only)) == 4


def test_a_csv_file_keeps_its_mark_its_separator_line_and_its_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("\ufeffsep=;\r\nid;text;note\r\n1;fine;ä\r\n".encode())
    (marked,) = flow(tmp_path / "out", path, drop_columns=("note",), probabilities="none").outputs.values()
    assert (
        marked.read_bytes()
        == (
            "\ufeffsep=;\r\nid;text;predicted_label;n_tokens;truncated;status\r\n1;fine;NEGATIVE;3;false;ok\r\n"
        ).encode()
    )
    path.write_bytes("text;ä\nfine;ö\n".encode("cp1252"))
    settings = ReadSettings(encoding="cp1252")
    (old,) = flow(
        tmp_path / "old", path, read=settings, renames={"ä": "ü"}, probabilities="none"
    ).outputs.values()
    assert old.read_bytes().decode("cp1252") == (
        "text;ü;predicted_label;n_tokens;truncated;status\nfine;ö;NEGATIVE;3;false;ok\n"
    )
    with pytest.raises(DataError, match="cannot be written in cp1252"):
        flow(tmp_path / "bad", path, read=settings, renames={"ä": "見"})


def test_a_json_value_keeps_its_bytes_whatever_is_left_out_around_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1.10, "x" :{"a":[1,  2]}, "text":"f\\u0069ne"}  \n{"text": "b", "late": 1e5}\n')
    (out,) = flow(
        tmp_path / "out", path, drop_columns=("id",), renames={"x": "y", "late": "z"}, probabilities="none"
    ).outputs.values()
    first, second = out.read_text().splitlines()
    assert first.startswith('{"y": {"a":[1,  2]}, "text": "f\\u0069ne", "predicted_label": ')
    assert second.startswith('{"text": "b", "z": 1e5, "predicted_label": ')
    with pytest.raises(DataError, match=r"--rename gives a name that another column has: late"):
        flow(tmp_path / "taken", path, renames={"x": "late"})
    with pytest.raises(DataError, match=r"has no column lately \(--drop-columns\). Did you mean late\?"):
        flow(tmp_path / "unknown", path, drop_columns=("lately",))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"keep_columns": ("idd",)},
            DataError,
            r"no column idd \(--keep-columns\). Did you mean id\? Columns: id ",
        ),
        ({"drop_columns": ("prob_POSITIVE",)}, DataError, r"no column prob_POSITIVE \(--drop-columns\)"),
        (
            {"renames": {"sentiment": "x"}},
            DataError,
            r"no column sentiment \(--rename; added: predicted_label, ",
        ),
        ({"renames": {"id": "text"}}, DataError, r"--rename gives a name that another column has: text"),
        (
            {"renames": {"predicted_label": "label"}},
            DataError,
            r"--rename gives a name that another column has: label",
        ),
        ({"renames": {"id": "status"}}, DataError, r"--rename gives a name that another column has: status"),
        (
            {"renames": {"status": "probability"}},
            UsageError,
            r"--rename calls two of the added columns probability",
        ),
        (
            {"renames": {"id": "x"}, "drop_columns": ("id",)},
            UsageError,
            r"--rename id=...: predictions do not hold",
        ),
        ({"renames": {"status": "x"}, "prefix": "m_"}, UsageError, r"called m_status; rename that"),
        (
            {"renames": {"probability": "p"}, "probabilities": "none"},
            UsageError,
            "--probabilities none leaves",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        flow(tmp_path / "out", write(tmp_path, "csv"), **options)


def test_names_that_are_swapped_or_left_out_take_no_other_columns_place(tmp_path: Path) -> None:
    path = write(tmp_path, "parquet")
    swapped = flow(tmp_path / "swapped", path, renames={"id": "label", "label": "id"})
    assert [row["label"] for row in read(swapped.only)] == COLUMNS["id"]
    again = flow(tmp_path / "again", swapped.only, read=NO_LABELS, drop_columns=tuple(ADDED))
    assert list(read(again.only)[0])[-len(ADDED) :] == ADDED  # scored again without the old answers
    beside = flow(
        tmp_path / "beside",
        swapped.only,
        read=NO_LABELS,
        prefix="new_",
        renames={"new_status": "n", "status": "o"},
    )
    assert list(read(beside.only)[0])[-2:] == ["new_truncated", "n"]


def test_a_value_that_a_format_cannot_hold_stops_nothing_where_it_is_left_out(tmp_path: Path) -> None:
    table = pa.table({"text": ["fine"], "raw": pa.array([b"\xff"]).cast(pa.string(), safe=False)})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"column raw holds a string that is not UTF-8.*--drop-columns"):
        flow(tmp_path / "refused", tmp_path / "a.parquet", output_format="csv")
    flow(tmp_path / "out", tmp_path / "a.parquet", output_format="csv", drop_columns=("raw",))
    (tmp_path / "b.jsonl").write_text('{"text": "fine", "raw": "a\\u0000"}\n')
    with pytest.raises(DataError, match="NUL"):
        flow(tmp_path / "refused", tmp_path / "b.jsonl", output_format="csv")
    flow(tmp_path / "out", tmp_path / "b.jsonl", output_format="csv", drop_columns=("raw",))


def test_a_pandas_index_may_be_left_out(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["fine", "bad"]}, index=pd.Index(["x", "y"], name="key"))
    frame.to_parquet(tmp_path / "a.parquet")
    (out,) = flow(tmp_path / "out", tmp_path / "a.parquet", drop_columns=("key",)).outputs.values()
    assert pd.read_parquet(out).index.tolist() == [0, 1]


def test_names_with_commas_stand_in_quotes() -> None:
    assert names_of(' id ,"day, month","the ""x"""', "--keep-columns") == ("id", "day, month", 'the "x"')
    for text in ("", "a,", ",a", "a,a", '"a"b', '"a'):
        if text not in {'"a"b', '"a'}:
            with pytest.raises(UsageError, match="needs names divided by commas"):
                names_of(text, "--keep-columns")
    assert names_of('5" disk,b', "--x") == ('5" disk', "b")
    for texts in (["a"], ["=b"], ["a="], ["a=b", "a=c"], ["a=x", "b=x"]):
        with pytest.raises(UsageError, match="--rename"):
            renames_of(texts)


# ------------------------------------------------------------------------------------------------- an earlier run


@pytest.fixture
def quick(tiny_model: Path) -> Iterator[Path]:
    """A model that answers at once."""
    with answering_at_once(tiny_model), without_page():
        yield tiny_model


def rows(count: int = 12) -> pd.DataFrame:
    texts = [f"text number {k} {'very ' * (k % 5)}good" for k in range(count)]
    labels = [("NEGATIVE", "POSITIVE")[k % 2] for k in range(count)]
    return pd.DataFrame({"id": [f"{k:03}" for k in range(count)], "text": texts, "label": labels})


def comparison(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "metrics.json").read_bytes())["comparison"])


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_an_earlier_run_with_other_names_is_read_by_them(tmp_path: Path, quick: Path, kind: str) -> None:
    rows().to_csv(tmp_path / "a.csv", index=False)
    rows().iloc[::-1].to_csv(tmp_path / "b.csv", index=False)
    renames = {"predicted_label": "label", "label": "given", "id": "key", "text": "review"}
    options = {"output_format": kind, "probabilities": "none"}
    run_score(tmp_path / "a.csv", quick, tmp_path / "before", renames=renames, **options)
    run_score(tmp_path / "b.csv", quick, tmp_path / "after", baseline=tmp_path / "before", renames=renames)
    told = comparison(tmp_path / "after")
    assert (told["matched_by"], told["rows"], told["changed"], told["relabelled"]) == ("id", 12, 0, 0)
    facts = json.loads((tmp_path / "before" / "run.json").read_bytes())
    assert facts["added_columns"] == {
        "predicted_label": "label",
        "n_tokens": "n_tokens",
        "truncated": "truncated",
        "status": "status",
    }
    assert facts["options"]["renames"] == renames


def test_an_earlier_run_without_ids_is_matched_by_place_or_refused(
    tmp_path: Path, quick: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(NOTICE)
    rows().to_csv(tmp_path / "a.csv", index=False)
    run_score(tmp_path / "a.csv", quick, tmp_path / "no ids", drop_columns=("id",))
    assert "predictions hold no ids" in caplog.text
    run_score(tmp_path / "a.csv", quick, tmp_path / "neither", keep_columns=("label",))
    assert "predictions hold neither ids nor texts" in caplog.text
    for name in ("no ids", "neither"):
        run_score(tmp_path / "a.csv", quick, tmp_path / f"after {name}", baseline=tmp_path / name)
        told = comparison(tmp_path / f"after {name}")
        assert (told["matched_by"], told["rows"], told["unmatched"]) == ("file and row", 12, 0)

    rows().assign(text=lambda frame: frame.text.where(frame.id != "003", "another")).to_csv(
        tmp_path / "a.csv", index=False
    )
    run_score(tmp_path / "a.csv", quick, tmp_path / "changed", baseline=tmp_path / "no ids")
    assert comparison(tmp_path / "changed")["unmatched"] == 1  # texts tell
    with pytest.raises(DataError, match=r"a.csv has changed since then, and its predictions hold neither"):
        run_score(tmp_path / "a.csv", quick, tmp_path / "refused", baseline=tmp_path / "neither")
    (tmp_path / "a.csv").rename(tmp_path / "b.csv")
    with pytest.raises(DataError, match=r"do not hold the ids \(id\), and no file has a name that it knows"):
        run_score(tmp_path / "b.csv", quick, tmp_path / "refused", baseline=tmp_path / "no ids")
    assert not (tmp_path / "refused" / "predictions").exists()


def test_slices_labels_and_mismatches_do_without_the_predictions_columns(tmp_path: Path, quick: Path) -> None:
    rows().to_csv(tmp_path / "a.csv", index=False)
    run_score(tmp_path / "a.csv", quick, tmp_path / "all", slice_columns=("label",))
    dropped = ("id", "text", "label")
    run_score(tmp_path / "a.csv", quick, tmp_path / "none", slice_columns=("label",), drop_columns=dropped)
    for name in ("metrics.json", "mismatches.parquet", "mismatches.csv"):
        assert (tmp_path / "all" / name).read_bytes() == (tmp_path / "none" / name).read_bytes()


def test_a_task_has_the_probabilities_that_it_has(tmp_path: Path) -> None:
    model = several_labels(tmp_path / "model")
    (tmp_path / "a.csv").write_text("text\nfine\n", encoding="utf-8")
    with answering_at_once(model), without_page():
        with pytest.raises(UsageError, match="of several labels at once none is the top one"):
            run_score(tmp_path / "a.csv", model, tmp_path / "run", probabilities="top")
        run_score(tmp_path / "a.csv", model, tmp_path / "run", probabilities="none")
        with pytest.raises(UsageError, match="--keep-columns and --drop-columns"):
            run_score(
                tmp_path / "a.csv", model, tmp_path / "b", keep_columns=("text",), drop_columns=("text",)
            )
    assert (tmp_path / "run/predictions/a.csv").read_text().startswith("text,predicted_labels,n_tokens,")
