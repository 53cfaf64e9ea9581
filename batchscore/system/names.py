"""Names from the system: bytes to it, text to most libraries."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from batchscore.errors import OutputError, printable
from batchscore.system.own_paths import AnyPath, own_folder


def is_utf8(name: str | Path) -> bool:
    """Whether the bytes of a path or an argument are UTF-8; libraries that are not written in Python open no other file."""
    try:
        str(name).encode()
    except UnicodeEncodeError:  # a lone surrogate is how Python writes a byte that cannot be decoded
        return False
    return True


def refuse_long_names(folder: AnyPath, names: Iterable[str]) -> None:
    """Refuse names that are too long for the file system, before any work is done.

    Raises:
        OutputError: a name or its full path has too many bytes.
    """
    path = own_folder(folder).path
    longest_name, longest_path = (os.pathconf(path, limit) for limit in ("PC_NAME_MAX", "PC_PATH_MAX"))
    before = len(os.fsencode(path.resolve())) + 1
    for name in names:
        sizes = [len(os.fsencode(piece)) for piece in PurePosixPath(name).parts]
        if max(sizes) > longest_name or before + len(os.fsencode(name)) >= longest_path:
            raise OutputError(
                f"{printable(name)}: too long for a file below {printable(folder)}, where a name has at most "
                f"{longest_name} bytes and a path {longest_path}. Rename the input, or leave --output-format alone."
            )
