"""Libraries whose talk a run turns off, as it may in a process of its own: in the caller's they get it back."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

_VERBOSITY = "TRANSFORMERS_VERBOSITY"


class _Talk(NamedTuple):
    """What ``transformers`` and ``datasets`` say."""

    verbosity: int
    has_bars: bool
    has_data_bars: bool


@contextlib.contextmanager
def as_talkative_as_before() -> Iterator[None]:
    """Give back the bars and the verbosity of libraries at the end of the block; none is imported for it."""
    before = _talk()
    try:
        yield
    finally:
        if (library := _transformers()) is not None:
            library.set_verbosity(before.verbosity)
            (library.enable_progress_bar if before.has_bars else library.disable_progress_bar)()
        if (data := sys.modules.get("datasets")) is not None and before.has_data_bars:
            data.enable_progress_bars()


def _talk() -> _Talk:
    """As it is, and of a library that is not loaded, as it will be."""
    library, data = _transformers(), sys.modules.get("datasets")
    named = logging.getLevelNamesMapping().get(os.environ.get(_VERBOSITY, "").upper(), logging.WARNING)
    return _Talk(
        library.get_verbosity() if library is not None else named,
        library.is_progress_bar_enabled() if library is not None else True,
        data is None or not data.are_progress_bars_disabled(),
    )


def _transformers() -> Any:
    return sys.modules.get("transformers.utils.logging")
