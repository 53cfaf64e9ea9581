"""How an option is declared: every one can be set by the environment too."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def option(*names: str, **facts: Any) -> Callable[[Command], Command]:
    """An option that the environment can set too: ``--max-rejects`` is ``BATCHSCORE_MAX_REJECTS``."""
    variables = [
        "BATCHSCORE_" + name.strip("-").replace("-", "_").upper() for name in names if name.startswith("--")
    ]
    return click.option(*names, envvar=variables, show_envvar=False, **facts)


class SeveralNames(click.Option):
    """A repeatable option with a new and an old name: what the environment gives under both adds up.

    Click adds up the flags, and :func:`load_config` the keys of a settings file.
    """

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:  # noqa: ARG002 - click's own signature
        """The values of all its variables with a space between them; ``None`` if none is set."""
        values = [os.environ.get(name, "") for name in self.envvar or ()]
        return " ".join(filter(None, values)) or None
