"""Progress as tqdm shows it: a bar in a notebook or a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from typing import Any

from batchscore.system.terminal import Progress


class Bar(Progress):
    """A bar of ``tqdm.auto``."""

    def __init__(self, total: int, unit: str = "rows", *, quiet: bool = False) -> None:
        super().__init__(total, unit, quiet=True)  # no lines, which are the command's
        if not quiet and (_is_notebook() or sys.stderr.isatty()):
            from tqdm.auto import tqdm

            self._bar: Any = tqdm(total=total, unit=f" {unit}", smoothing=0.05, dynamic_ncols=True)


def _is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = sys.modules.get("IPython")
    return shell is not None and hasattr(shell.get_ipython(), "kernel")
