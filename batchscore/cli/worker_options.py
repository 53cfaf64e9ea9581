"""Options that say how many compute at a time, and how long a run waits for them."""

from __future__ import annotations

import re
from typing import Any

import click

from batchscore.cli.declaring import option
from batchscore.errors import printable

_WORKERS = re.compile(r"(?:(\d{1,6})-)?(\d{1,6})")


class Workers(click.ParamType[tuple[int, int]]):
    """``8`` is ``1-8``; on a cluster a run waits for the first number, and takes the second at most."""

    name = "workers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Refuse anything else."""
        if isinstance(value, tuple):
            return value
        found = _WORKERS.fullmatch(str(value))
        least, most = (int(found[1] or 1), int(found[2])) if found else (0, 0)
        if not 1 <= least <= most:
            self.fail(
                f"{printable(value)!r} is neither a number from 1 on nor MIN-MAX, such as 2-8.", param, ctx
            )
        return least, most


WORKER_OPTIONS = (
    option(
        "--workers",
        type=Workers(),
        metavar="N|MIN-MAX",
        help="Micro-batches to compute at the same time, on a cluster scoring processes.  [default: one per core, all of a cluster]",
    ),
    option(
        "--wait-for-workers",
        type=click.FloatRange(0),
        default=600.0,
        show_default=True,
        metavar="SECONDS",
        help="Wait so long for MIN scoring processes of a cluster (1 if only N is given).",
    ),
)
