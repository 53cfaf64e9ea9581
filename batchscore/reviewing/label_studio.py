"""Rows for review as tasks of Label Studio, and its annotations as verdicts.

Its format of JSON: a list of tasks, each with ``data``, what the model says (``predictions``) and what people said
(``annotations``). The labelling interface needs ``Choices`` named ``label`` to the ``Text`` named ``text`` (:func:`interface`).
A task that was skipped is one that nobody can tell, one that was submitted without a choice has none of the labels.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, TypedDict
from xml.sax.saxutils import quoteattr

from batchscore.errors import DataError, NoInputError, printable
from batchscore.records import Text
from batchscore.reviewing.records import RunRow
from batchscore.reviewing.store import NONE, OTHER, UNSURE, Verdict
from batchscore.system.documents import DocumentError, Shape, checked, read_json

NAME = "labelstudio"
_CHOICE, _TEXT = "label", "text"
_TASK: Shape = {
    "data": {
        "run": str,
        "file": str,
        "row": int,
        "text": str,
        "text_pair?": str,
        "text_hash": str,
        "given_label?": str,
    },
    "annotations?": [{"result": [{"type": str, "value": {"choices?": [str]}}], "was_cancelled?": bool}],
}


class Task(NamedTuple):
    """One task, read back."""

    run: str
    file: str
    row: int
    given: str | None
    text: Text
    text_hash: str
    answers: frozenset[tuple[str, str | None]]
    """What was said of it, as :func:`batchscore.reviewing.judging.verdict_of` takes it: nothing, one answer, or several that differ."""


def interface(labels: Sequence[str], *, has_pairs: bool) -> str:
    """The labelling interface for these labels, as Label Studio's settings of a project take it."""
    choices = "".join(f"<Choice value={quoteattr(label)}/>" for label in labels)
    texts = (
        f'<Text name="{_TEXT}" value="$text"/>' + '<Text name="text_pair" value="$text_pair"/>' * has_pairs
    )
    return (
        f'<View>{texts}<Choices name="{_CHOICE}" toName="{_TEXT}" choice="single">{choices}</Choices></View>'
    )


def write(out: IO[bytes], run: str, model: str, rows: Iterable[tuple[RunRow, Verdict | None]]) -> int:
    """Write rows as tasks; ``run`` and ``model`` are fingerprints. Returns their number."""
    count = 0
    out.write(b"[")
    for row, verdict in rows:
        out.write(b",\n" if count else b"\n")
        out.write(
            json.dumps(_task(run, model, row, verdict), ensure_ascii=False).encode(
                "utf-8", "backslashreplace"
            )
        )
        count += 1
    out.write(b"\n]\n")
    return count


class _Written(TypedDict):
    """One task."""

    data: dict[str, Any]
    predictions: list[dict[str, Any]]
    annotations: list[dict[str, Any]]


def _task(run: str, model: str, row: RunRow, verdict: Verdict | None) -> _Written:
    texts = (row.text,) if isinstance(row.text, str) else row.text
    names = dict(zip(("text", "text_pair"), texts, strict=False))
    data = {**names, "id": row.id, "given_label": row.given, "predicted_label": row.predicted}
    said, found = list[dict[str, Any]](), list[dict[str, Any]]()
    if row.predicted is not None:
        said.append({"model_version": model, "score": row.probability, "result": [_choice(row.predicted)]})
    if verdict is not None:
        result = [] if verdict.label is None else [_choice(verdict.label)]
        found.append({"result": result, "was_cancelled": verdict.kind == UNSURE})
    place = {"file": row.file, "row": row.row, "text_hash": row.text_hash, "run": run}
    return _Written(data={**data, **place}, predictions=said, annotations=found)


def _choice(label: str) -> dict[str, Any]:
    return {"from_name": _CHOICE, "to_name": _TEXT, "type": "choices", "value": {"choices": [label]}}


def read(path: Path) -> Iterator[Task]:
    """The tasks of an export in Label Studio's format of JSON (not JSON-MIN).

    Raises:
        DataError: it is no such file.
        NoInputError: it cannot be read.
    """
    try:
        tasks = checked(read_json(path), [_TASK])
    except DocumentError as error:
        raise DataError(
            f"{printable(path)} is no export of tasks that batchscore review made: {error}. Export them from Label Studio as JSON."
        ) from None
    except OSError as error:
        raise NoInputError(f"{printable(path)} cannot be read: {error.strerror}.") from error
    for task in tasks:
        data = task["data"]
        pair = data.get("text_pair")
        text = data["text"] if pair is None else (data["text"], pair)
        answers = frozenset(map(_answer, task.get("annotations") or ()))
        sure = frozenset(answer for answer in answers if answer[0] != UNSURE)
        yield Task(
            data["run"],
            data["file"],
            data["row"],
            data.get("given_label"),
            text,
            data["text_hash"],
            sure or answers,
        )


def _answer(annotation: Mapping[str, Any]) -> tuple[str, str | None]:
    if annotation.get("was_cancelled"):
        return UNSURE, None
    choices = [
        choice
        for result in annotation["result"]
        if result["type"] == "choices"
        for choice in result["value"].get("choices") or ()
    ]
    return (OTHER, choices[0]) if choices else (NONE, None)
