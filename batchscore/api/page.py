"""A page as an object that a notebook shows, and the mismatches beside it."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import TYPE_CHECKING

from batchscore.runs.folder import MISMATCHES
from batchscore.system.own_paths import own_folder

if TYPE_CHECKING:
    import pyarrow as pa

_FRAME = (
    '<iframe srcdoc="{}" title="batchscore" sandbox="allow-popups allow-popups-to-escape-sandbox" '
    'style="width: 100%; height: 640px; border: 1px solid #8884; resize: vertical"></iframe>'
)
_BASE = '<base href="about:srcdoc">'
"""Within a frame, ``#place`` would otherwise lead to the notebook's own address."""
_FILE_LINK = re.compile(
    r'<a\b[^>]*?\shref="(?!#|[a-z][a-z0-9+.-]*:)[^"]*"[^>]*>(.*?)</a>', re.DOTALL | re.IGNORECASE
)
"""A link to a file beside the page: from within a frame, no browser follows it."""


class Page:
    """A page, which shows itself in a notebook: in a frame, so that neither's styles reach the other."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        """The path of the page."""
        return str(self.path)

    def __repr__(self) -> str:
        return f"<report {self.path}>"

    def _repr_html_(self) -> str:
        page = self.path.read_text("utf-8").replace("base-uri 'none'", "base-uri about:", 1)
        page = _FILE_LINK.sub(r"\1", page)
        return _FRAME.format(html.escape(page.replace("<head>", f"<head>{_BASE}", 1)))


def mismatches_in(folder: Path) -> pa.Table | None:
    """The mismatches of a run or an evaluation; None without labels.

    Raises:
        DataError, StorageError: the file is damaged or cannot be read.
    """
    path, own = folder / MISMATCHES, own_folder(folder) / MISMATCHES
    if not own.exists():
        return None
    import pyarrow.parquet as pq

    from batchscore.formats.source import Source, reading

    with reading(Source(path, path.suffix, "")), own.open_read() as file:
        return pq.read_table(file)
