"""Open files for Arrow, whatever their names: Arrow itself opens only those whose paths are UTF-8."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from batchscore.system.names import is_utf8


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[pa.NativeFile]:
    """A file as memory, of which pages are read when they are looked at.

    Arrays made from it hold the memory, also after the block.

    Raises:
        OSError: it cannot be opened.
    """
    with pa.BufferReader(_memory(path)) as file:
        yield file


def path_or_memory(path: Path) -> str | pa.Buffer:
    """What Arrow's readers take: the path where Arrow can open it, else the file as memory.

    Raises:
        OSError: it cannot be opened.
    """
    return str(path) if is_utf8(path) else _memory(path)


def _memory(path: Path) -> pa.Buffer:
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return pa.py_buffer(b"")  # which cannot be mapped
        return pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
