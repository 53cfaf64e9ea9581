"""Names from the system: bytes to it, text to most libraries."""

from __future__ import annotations

from pathlib import Path


def is_utf8(name: str | Path) -> bool:
    """Whether the bytes of a path or an argument are UTF-8; libraries that are not written in Python open no other file."""
    try:
        str(name).encode()
    except UnicodeEncodeError:  # a lone surrogate is how Python writes a byte that cannot be decoded
        return False
    return True
