"""Rows that cannot be read: a run with more of them than are allowed is refused before anything is scored."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from batchscore.errors import DataError, printable
from batchscore.runs.folder import REJECTS, Staging, is_finished
from batchscore.system.storage import atomic_write, publish

if TYPE_CHECKING:
    from batchscore.config import Allowance
    from batchscore.runs.planning import Plan
    from batchscore.system.own_paths import OwnPath


def refuse_rejects(plan: Plan, allowed: Allowance, staging: Staging, output: OwnPath) -> None:
    """Refuse a run with more rejects than are ``allowed``; they are listed in ``output``, unless it holds a finished run.

    Raises:
        DataError: names the first, and what may help.
    """
    if allowed.allows(plan.rejects, plan.rows):
        return
    with staging.rejects.open_read() as file:
        first = json.loads(file.readline())
    where = f"line {first['line']}" if first["line"] else f"row {first['row']}"
    if is_finished(output):  # a finished run stays as it is
        listed = "Name another --output to have all of them listed"
    else:
        _publish(staging, output)
        listed = f"All are in {printable(output)}/{REJECTS}"
    raise DataError(
        f"{plan.rejects} of {plan.rows} rows cannot be read, {allowed} are allowed. The first: "
        f"{printable(first['file'])}, {where}: {first['reason']}. {listed}. "
        f"{_advice(first)}Mend them, or allow them with --max-rejects."
    )


def _publish(staging: Staging, output: OwnPath) -> None:
    with staging.rejects.open_read() as rejects, atomic_write(staging.rejects_copy) as out:
        shutil.copyfileobj(rejects, out)
    publish(staging.rejects_copy, output / REJECTS)


def _advice(reject: Mapping[str, Any]) -> str:
    """The option that may help with a reject of a CSV file."""
    if "quote" not in reject["reason"]:
        return ""
    if b'\\"' in base64.b64decode(reject["raw"]):
        return "If a backslash takes its meaning from a quote: --escapechar '\\'. "
    return "If quotes mean nothing in this file: --quotechar ''. "
