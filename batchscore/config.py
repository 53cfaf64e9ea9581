"""Settings: one frozen object per command, and the fingerprint of those that change results."""

from __future__ import annotations

import codecs
import dataclasses
import datetime
import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from batchscore.addresses import Address
from batchscore.errors import UsageError

LONG_TEXT = ("head", "head-tail", "windows")
MISSING_PAIR = ("skip", "empty")
COMPILE = ("auto", "on", "off")
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")
TRAIN_PRECISIONS = ("auto", "fp32", "bf16")
PROBABILITIES = ("all", "top", "none")
BELOW = ("next", "abstain")
CLASS_WEIGHTS = ("none", "balanced")
TEACHER_TEMPERATURE = 2.0
"""What logits are divided by while a student learns a teacher's answers, unless something else is asked for."""
LATEST: Literal["latest"] = "latest"
"""In the place of a run's folder: the one that came last."""


@dataclasses.dataclass(frozen=True, slots=True)
class Allowance:
    """How many unreadable rows a run may have: a count, or a share of its rows."""

    count: int = 0
    share: float | None = None

    @classmethod
    def parse(cls, text: str) -> Allowance:
        """``"5"`` is five rows, ``"0.5%"`` is one row in two hundred."""
        try:
            if text.endswith("%"):
                share = float(text[:-1]) / 100
                if not 0 <= share <= 1:
                    raise ValueError(text)
                return cls(share=share)
            count = int(text)
            if count < 0:
                raise ValueError(text)
        except ValueError:
            raise UsageError(
                f"--max-rejects {text!r} is neither a count nor a percentage; try 10 or 0.1%"
            ) from None
        return cls(count=count)

    def allows(self, rejects: int, rows: int) -> bool:
        """Whether ``rejects`` of ``rows`` rows are within bounds."""
        return rejects <= (self.count if self.share is None else self.share * rows)

    def __str__(self) -> str:
        """As it is written on the command line."""
        return str(self.count) if self.share is None else f"{self.share:.4%}"


@dataclasses.dataclass(frozen=True, slots=True)
class ReadSettings:
    """How inputs are read; ``None`` means detected from the name and the first bytes."""

    format: str | None = None
    delimiter: str | None = None
    quotechar: str | None = None
    escapechar: str | None = None
    encoding: str | None = None
    sheet: str | None = None
    """The sheet of an Excel workbook; ``None``: the only one with values."""
    skip_lines: int = 0
    """Lines before the header of a CSV file, or rows above that of a sheet."""
    header_lines: int = 1
    """Records in the header; the first names the columns."""
    has_no_header: bool = False
    column_names: tuple[str, ...] = ()
    """Column names for a CSV file or a sheet without a header; if empty, columns are numbered."""
    text_column: str | None = None
    label_column: str | None = None
    label_columns: tuple[str, ...] = ()
    """Columns of 0 and 1, one for each label of a multi-label model."""
    id_column: str | None = None
    text_pair_column: str | None = None
    """The column of second texts; ``None``: a row is one text."""
    part_rows: int = 2048
    """Maximum rows in a part."""
    part_bytes: int = 64 * 2**20
    """Maximum bytes of rows in a part; a single larger row is a part of its own."""
    max_row_bytes: int = 32 * 2**20
    max_columns: int = 10_000
    max_expansion: int = 200
    """Maximum decompressed bytes per byte on disk (after the first 64 MiB)."""


@dataclasses.dataclass(frozen=True, slots=True)
class ComputeSettings:
    """Where and how logits are computed."""

    device: str = "auto"
    precision: str = "auto"
    backend: str = "auto"
    max_batch_tokens: int | None = None
    """Maximum tokens in a micro-batch, padding included; ``None`` is auto."""
    workers: int | None = None
    """How many compute at a time; on a cluster at most. ``None`` is auto."""
    least_workers: int = 1
    """How many scoring processes of a cluster a run waits for."""
    wait_for_workers: float = 600.0
    """Seconds that it waits for them."""
    compile: str = "auto"

    @property
    def is_compiled(self) -> bool:
        """Whether the model is compiled where possible.

        ``auto`` does not compile: packed matmuls (:mod:`batchscore.model.backends.packed`) took 144, 161 and 203 ms for
        2,048 tokens in rows of 96, 256 and 512 (MiniLM in bfloat16, one core with AVX-512); compiled code took 150, 208
        and 280 ms, after about a minute of compiling. Not measured on a GPU.
        """
        return self.compile == "on"


@dataclasses.dataclass(frozen=True, slots=True)
class Acceptance:
    """Which predictions are accepted unseen, and what that was chosen on; every tuple has an entry for each label."""

    precision: float
    """The share of accepted rows that is right, at least; so it is promised for each label."""
    confidence: float
    """The probability that the promise holds for all labels, over the draw of the calibration rows."""
    thresholds: tuple[float | None, ...]
    """The least probability at which it is accepted; None if it never is, because nothing could be promised."""
    rows: tuple[int, ...]
    """Calibration rows that were predicted so."""
    accepted: tuple[int, ...]
    """Those of them that the threshold accepts."""
    right: tuple[int, ...]
    """Those of these that were right."""
    source: str = ""
    """Where the calibration rows come from."""
    computed_in: str = ""
    """The precision that their probabilities were computed in."""


@dataclasses.dataclass(frozen=True, slots=True)
class ScoreSettings:
    """Settings of one ``score`` call."""

    inputs: tuple[str, ...]
    model: str
    output: Path
    revision: str | None = None
    trust: tuple[Path, ...] = ()
    """Files with public keys, one of which must have signed the model; none: nobody need have."""
    label_map: Mapping[str, str] = dataclasses.field(default_factory=dict)
    read: ReadSettings = dataclasses.field(default_factory=ReadSettings)
    compute: ComputeSettings = dataclasses.field(default_factory=ComputeSettings)
    output_format: str = "same"
    partition_by: str | None = None
    """An input column by whose values predictions are divided into folders."""
    append_to: Path | None = None
    """A folder of Parquet files that the finished predictions are appended to."""
    long_text: str | None = None
    """``None``: the bundle's setting, else ``head``."""
    missing_pair: str | None = None
    """Whether a row without its second text is left unscored (``skip``), or scored with an ``empty`` one; ``None``: the
    bundle's setting, else ``skip``."""
    max_rejects: Allowance = dataclasses.field(default_factory=Allowance)
    fail_below: tuple[str, ...] = ()
    fail_above: tuple[str, ...] = ()
    baseline: Path | Address | Literal["latest"] | None = None
    """The folder of an earlier run to compare with, or :data:`LATEST`; an address is copied to this machine when the run starts."""
    reuse: Path | Literal["latest"] | None = None
    """An earlier run, :data:`LATEST`, or the folder of a store, whose answers are taken for texts that were scored before."""
    audit: float = 0.01
    """Of the texts whose answers are taken, the share that is scored again all the same, and compared."""
    slice_columns: tuple[str, ...] = ()
    """Input columns whose values the accuracy is broken down by."""
    with_text: bool = True
    """Whether the page may show texts of reviews."""
    engine: str = "local"
    limit: int | None = None
    skip_empty: bool = False
    """Whether no file or no row raises :class:`~batchscore.errors.NothingToDoError`, instead of an error or an empty result."""
    dry_run: bool = False
    force: bool = False
    prefix: str = ""
    keep_columns: tuple[str, ...] = ()
    """Input columns that predictions hold; none: all but ``drop_columns``."""
    drop_columns: tuple[str, ...] = ()
    probabilities: str = "all"
    """Which columns of probabilities predictions hold: ``all``, the predicted label's (``top``), or ``none``."""
    renames: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Name that a column of predictions would have → the name that it has."""
    thresholds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Label → the least probability at which it is predicted; the empty label stands for all."""
    below: str | None = None
    """Models with one label a row: what happens below the likeliest label's threshold; ``None`` is ``next``."""
    accept: float | None = None
    """The least share of accepted rows that is to be right; None: nothing is decided."""
    accept_confidence: float = 0.95
    """The probability that this holds, over the draw of the calibration rows."""
    accept_on: Path | None = None
    """A finished, labelled run of the same model whose rows the thresholds are chosen on; None: those of the bundle."""
    accepting: Acceptance | None = None
    """What ``accept`` comes to, which is found out when the run is opened."""
    tolerance: float | None = None
    """How far a regression's value may be from the given one; ``None``: half a unit if the given ones are whole numbers."""
    verify: bool = False
    """Whether all of a run that has finished is hashed before it is called so, instead of what may have changed."""
    verify_inputs: bool = False
    """Whether the inputs of a run that was begun or has finished are hashed again, instead of those that may have changed."""
    bucket: Address | None = None
    """The run folder, where that is in a bucket; ``output`` is then its copy on this machine, made when the run starts."""
    pinned: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Address of an input → the version of it (its ETag, or the commit) that was copied to this machine."""
    within: Path | None = None
    """The folder that the user named, where that is not ``output`` itself but one that it lies in: no link below it is followed."""
    date: datetime.date | None = None
    """The night that the run is for; ``None``: the date in its folder's name, else the day on which it finished."""

    def result_options(self) -> dict[str, Any]:
        """The settings that change what is in the run folder, as JSON values: all but the :data:`HARMLESS`."""
        return {**self.part_options(), **self.report_options()}

    def part_options(self) -> dict[str, Any]:
        """The settings that change the plan or the staged parts: all but the harmless ones and those of the report."""
        return _options(self, without={*HARMLESS, *REPORT_ONLY})

    def report_options(self) -> dict[str, Any]:
        """The settings that change only the metrics and the page; a resumed run may have others."""
        return {name: _json_value(getattr(self, name)) for name in REPORT_ONLY}


HARMLESS: Mapping[str, str] = {
    "inputs": "the files' names, formats and bytes are hashed",
    "model": "the bytes of its files are hashed",
    "revision": "it names a model's bytes, and these are hashed",
    "trust": "it tells whether a model is taken, whose bytes are hashed",
    "output": "it is where the results go",
    "bucket": "it is where the results go",
    "pinned": "the inputs' bytes are hashed",
    "within": "it is where the results go",
    "verify": "it tells how a finished run is looked at",
    "verify_inputs": "it tells how inputs are looked at",
    "accept_on": "the thresholds that are chosen there count",
    "append_to": "it is where a copy of the finished predictions goes",
    "max_rejects": "a run that stopped for its rejects goes on where it was when more are allowed",
    "skip_empty": "it tells how a run without a row ends, which has no results",
    "dry_run": "nothing is written",
    "force": "it tells what becomes of an earlier run",
    "reuse": "the answers that are taken are, bit for bit, those that scoring gives",
    "audit": "what is scored again has the answers that it had",
    "engine": "the same code computes each micro-batch, in whichever process; one on another kind of machine is turned away",
    "compute.workers": "each micro-batch is computed by itself, so how many at a time changes no bit",
    "compute.least_workers": "it tells how many processes are waited for",
    "compute.wait_for_workers": "it tells how long processes are waited for",
}
"""Settings that change nothing in a run folder, each with the reason. Whatever is not listed counts for the fingerprint."""
REPORT_ONLY: Mapping[str, str] = {
    "fail_below": "gates are held against finished metrics",
    "fail_above": "gates are held against finished metrics",
    "baseline": "it is compared with what is staged; for the fingerprint its bytes count in the place of its path",
    "with_text": "it is about the page",
    "tolerance": "it is held against finished values",
    "date": "it is the night that the report is for",
}
"""Settings that change the metrics and the page but nothing that is staged, each with the reason."""
_NORMALISED: Mapping[str, Callable[[Any], Any]] = {
    "slice_columns": lambda score: tuple(dict.fromkeys(score.slice_columns)),
    "read.encoding": lambda read: _codec(read.encoding),
    "below": lambda score: score.below or "next",
    "compute.device": lambda compute: "cuda:0" if compute.device == "cuda" else compute.device,
    "compute.compile": lambda compute: "on" if compute.is_compiled else "off",
}
"""Normalises a setting, given its settings object: values that mean the same become one value."""


def _codec(name: str | None) -> str | None:
    try:
        return name if name is None else codecs.lookup(name).name
    except (LookupError, ValueError):  # refused when a file is read
        return name


def _options(settings: Any, *, without: Collection[str], group: str = "") -> dict[str, Any]:
    """Every field of a settings object as a JSON value, except those whose dotted path is in ``without``."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        path, value = f"{group}{field.name}", getattr(settings, field.name)
        if path in without:
            continue
        if dataclasses.is_dataclass(value):
            found[field.name] = _options(value, without=without, group=f"{path}.")
        else:
            found[field.name] = _json_value(_NORMALISED[path](settings) if path in _NORMALISED else value)
    return found


def _json_value(value: Any) -> Any:
    """A setting's value as JSON; mappings are sorted by key.

    Raises:
        TypeError: unsupported type.
    """
    if isinstance(value, Mapping):
        return {key: _json_value(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_json_value(each) for each in value]
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"settings hold no {type(value).__name__}")


@dataclasses.dataclass(frozen=True, slots=True)
class InboxSettings:
    """Settings of one ``inbox`` call."""

    inbox: Path
    output: Path
    """The parent folder of the run folders."""
    score: ScoreSettings
    """How each file is scored; ``inputs`` and ``output`` are ignored."""
    require_done: bool = False
    """Whether a file is complete only with ``NAME.done`` beside it."""
    settle: float = 60.0
    """Seconds for which a file without such a marker must be unchanged."""
    skip_empty: bool = False


CONFLICTS = ("refuse", "first", "last")


@dataclasses.dataclass(frozen=True, slots=True)
class EvaluateSettings:
    """Settings of one ``evaluate`` call."""

    run: Path
    """The folder of a finished run."""
    labels: tuple[Path, ...]
    """Files with labels."""
    output: Path | None = None
    """The folder of the evaluation; ``None``: beside the run, ``<run>.evaluation``."""
    read: ReadSettings = dataclasses.field(default_factory=ReadSettings)
    """How the files of labels are read; text columns mean nothing."""
    run_id_column: str | None = None
    """The column of the predictions with the ids; ``None``: the one that the run took."""
    file_column: str | None = None
    row_column: str | None = None
    first_row: int | None = None
    """Whether rows of a file count from 0 or from 1; ``None``: 0, but in formats of people it must be said."""
    label_map: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Added to that of the run."""
    conflicts: str = "refuse"
    """Which of several different labels for one row counts that come in one call."""
    fail_below: tuple[str, ...] = ()
    fail_above: tuple[str, ...] = ()
    baseline: Path | Literal["latest"] | None = None
    slice_columns: tuple[str, ...] = ()
    """Besides those of the run."""
    tolerance: float | None = None
    with_text: bool = True
    force: bool = False
    """Whether an earlier evaluation, and the labels that it keeps, are dropped."""

    def reading(self) -> dict[str, Any]:
        """The settings that say what the labels of a file are, as JSON values."""
        names = ("read", "run_id_column", "file_column", "row_column", "first_row", "label_map", "conflicts")
        return {name: value for name, value in _options(self, without=()).items() if name in names}

    def measuring(self) -> dict[str, Any]:
        """The settings that say how the rows are measured; the baseline counts by its content."""
        names = ("fail_below", "fail_above", "slice_columns", "tolerance", "with_text")
        return {name: _json_value(getattr(self, name)) for name in names}


def fingerprint(value: Any) -> str:
    """SHA-256 (hex) of a JSON value in its canonical form: sorted keys, no spaces, UTF-8."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
