"""What of the settings changes an answer: every field, but those that a table names as harmless."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import run_score
from flow import fake_bundle

from batchscore.addresses import Address
from batchscore.config import (
    HARMLESS,
    REPORT_ONLY,
    Acceptance,
    Allowance,
    ComputeSettings,
    ReadSettings,
    ScoreSettings,
)
from batchscore.errors import OutputError
from batchscore.runs.run import run_fingerprint

GROUPS: dict[str, Any] = {"": ScoreSettings, "read.": ReadSettings, "compute.": ComputeSettings}
OTHER_VALUES: dict[str, Any] = {
    "inputs": ("b.csv",),
    "model": "other",
    "output": Path("other"),
    "within": Path("all"),
    "bucket": Address("s3", "shop", "run"),
    "pinned": {"s3://shop/a.csv": "1"},
    "verify": True,
    "verify_inputs": True,
    "revision": "0" * 40,
    "trust": (Path("publisher.pub"),),
    "label_map": {"pos": "NEGATIVE"},
    "output_format": "csv",
    "partition_by": "day",
    "append_to": Path("lake"),
    "long_text": "windows",
    "missing_pair": "empty",
    "max_rejects": Allowance(count=3),
    "fail_below": ("accuracy=0.5",),
    "fail_above": ("drift=0.5",),
    "baseline": Path("earlier"),
    "reuse": Path("store"),
    "audit": 0.1,
    "slice_columns": ("shop",),
    "with_text": False,
    "engine": "ray",
    "limit": 7,
    "skip_empty": True,
    "dry_run": True,
    "force": True,
    "prefix": "model_",
    "keep_columns": ("id",),
    "drop_columns": ("text",),
    "probabilities": "top",
    "renames": {"predicted_label": "sentiment"},
    "below": "abstain",
    "thresholds": {"toxic": 0.3},
    "accept": 0.98,
    "accept_confidence": 0.99,
    "accept_on": Path("labelled"),
    "accepting": Acceptance(0.98, 0.95, (0.9, None), (500, 20), (400, 0), (398, 0), "rows", "fp32"),
    "tolerance": 0.25,
    "date": datetime.date(2026, 11, 26),
    "read.format": "csv",
    "read.delimiter": ";",
    "read.quotechar": "'",
    "read.escapechar": "\\",
    "read.encoding": "cp1252",
    "read.sheet": "May",
    "read.skip_lines": 1,
    "read.header_lines": 2,
    "read.has_no_header": True,
    "read.column_names": ("text", "label"),
    "read.text_column": "review",
    "read.label_column": "stars",
    "read.label_columns": ("toxic", "insult"),
    "read.id_column": "key",
    "read.text_pair_column": "title",
    "read.part_rows": 10,
    "read.part_bytes": 10,
    "read.max_row_bytes": 10,
    "read.max_columns": 10,
    "read.max_expansion": 10,
    "compute.device": "cuda:1",
    "compute.precision": "bf16",
    "compute.backend": "torch",
    "compute.max_batch_tokens": 512,
    "compute.workers": 3,
    "compute.least_workers": 2,
    "compute.wait_for_workers": 5.0,
    "compute.compile": "on",
}
"""Of each setting a value that is neither its default nor means the same."""
ASKED = ScoreSettings(("a.csv",), "model", Path("run"))
FIELDS = [group + field.name for group, cls in GROUPS.items() for field in dataclasses.fields(cls)]
LEAVES = [path for path in FIELDS if f"{path}." not in GROUPS]


def changed(path: str, value: Any) -> ScoreSettings:
    """The settings with another value of one field."""
    group, _, name = path.rpartition(".")
    if not group:
        return dataclasses.replace(ASKED, **{name: value})
    return dataclasses.replace(ASKED, **{group: dataclasses.replace(getattr(ASKED, group), **{name: value})})


def of_parts(settings: ScoreSettings) -> str:
    return run_fingerprint([], fake_bundle(), settings.part_options())


def of_result(settings: ScoreSettings) -> str:
    return run_fingerprint([], fake_bundle(), settings.result_options())


@pytest.mark.parametrize("path", LEAVES)
def test_every_setting_counts_but_the_harmless_ones(path: str) -> None:
    assert path in OTHER_VALUES, f"{path} is new: give it another value in OTHER_VALUES"
    other = changed(path, OTHER_VALUES[path])
    assert other != ASKED
    counts = (of_parts(other) != of_parts(ASKED), of_result(other) != of_result(ASKED))
    assert counts == (path not in {*HARMLESS, *REPORT_ONLY}, path not in HARMLESS)


def test_the_tables_of_exceptions_name_settings_that_there_are() -> None:
    assert set(HARMLESS) | set(REPORT_ONLY) <= set(LEAVES)
    assert not set(HARMLESS) & set(REPORT_ONLY)
    assert set(OTHER_VALUES) == set(LEAVES)


def test_a_group_of_settings_is_one_whose_fields_are_tried() -> None:
    """A nested settings object that no test goes into would hide its fields; what is harmless as a whole may be one."""
    nested = {f"{field.name}." for field in dataclasses.fields(ASKED) if _is_group(field.name)}
    assert nested == set(GROUPS) - {""}


def _is_group(name: str) -> bool:
    return dataclasses.is_dataclass(getattr(ASKED, name)) and name not in HARMLESS


@pytest.mark.parametrize("group", ["", "read", "compute"])
def test_a_new_setting_counts_by_itself(group: str) -> None:
    def with_taste(taste: str) -> ScoreSettings:
        before: Any = getattr(ASKED, group) if group else ASKED
        fields: list[Any] = [("taste", str, dataclasses.field(default="sweet"))]
        wider: Any = dataclasses.make_dataclass("Wider", fields, bases=(type(before),), frozen=True)
        values = {field.name: getattr(before, field.name) for field in dataclasses.fields(before)}
        made = wider(**values, taste=taste)
        return dataclasses.replace(ASKED, **{group: made}) if group else made

    assert of_parts(with_taste("sweet")) != of_parts(with_taste("sour"))


def test_a_setting_of_an_unknown_type_is_refused_instead_of_left_out() -> None:
    with pytest.raises(TypeError, match="set"):
        changed("prefix", {"a"}).part_options()


SAME_MEANING: dict[str, tuple[str, Any, Any]] = {
    "auto compiles nothing": ("compute.compile", "auto", "off"),
    "the order of mappings": ("label_map", {"a": "POSITIVE", "b": ""}, {"b": "", "a": "POSITIVE"}),
    "a column named twice": ("slice_columns", ("shop", "day"), ("shop", "day", "shop")),
    "names of an encoding": ("read.encoding", "UTF8", "utf-8"),
    "the first GPU": ("compute.device", "cuda", "cuda:0"),
    "what the bundle says of long texts": ("long_text", None, "head"),
}


@pytest.mark.parametrize(("path", "one", "other"), SAME_MEANING.values(), ids=SAME_MEANING)
def test_values_that_mean_the_same_have_one_fingerprint(path: str, one: Any, other: Any) -> None:
    assert of_parts(changed(path, one)) == of_parts(changed(path, other))
    assert of_result(changed(path, one)) == of_result(changed(path, other))


def test_the_order_of_slice_columns_is_that_of_the_page_and_counts() -> None:
    one, other = (changed("slice_columns", names) for names in (("shop", "day"), ("day", "shop")))
    assert of_parts(one) != of_parts(other)


def test_a_finished_run_is_the_same_by_another_word_and_another_by_another_setting(
    tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("text\na good film\n")

    def status(**options: Any) -> str:
        compute = ComputeSettings(precision="fp32", **options)
        return run_score(tmp_path / "a.csv", tiny_model, tmp_path / "run", compute=compute).status

    assert status() == "scored"
    assert status(compile="off", workers=2) == "done"
    with pytest.raises(OutputError, match="other options"):
        status(max_batch_tokens=64)
