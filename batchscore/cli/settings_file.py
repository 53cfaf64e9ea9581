"""``--config``, the settings file, and ``--show-config``, which tells where each value comes from."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from batchscore.errors import ModelError, printable
from batchscore.system.documents import read_regular

_MOST_BYTES = 2**20
_ACTIONS = {"show_config", "dry_run", "force"}
"""Options that say what this one call does; ``--show-config`` leaves them out, as it does ``--config`` and ``--help``."""
_SOURCES = {
    ParameterSource.COMMANDLINE: "flag",
    ParameterSource.ENVIRONMENT: "environment",
    ParameterSource.DEFAULT_MAP: "file",
    ParameterSource.DEFAULT: "default",
}


def load_config(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Use the values of a TOML file as defaults of the options; an unknown key is an error."""
    if path is None:
        return
    try:
        values = tomllib.loads(read_regular(path, _MOST_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"--config {printable(path)} cannot be read: {printable(error)}.") from error
    options = {
        long.strip("-").replace("-", "_"): p
        for p in context.command.params
        for long in p.opts
        if p.name and (long.startswith("--") or isinstance(p, click.Argument))
    }
    defaults: dict[str, Any] = {}
    for key, value in _checked(values, set(options), path).items():
        name = options[key].name or key
        if options[key].multiple:  # one value or a list of them; an old and a new name add up
            defaults[name] = defaults.get(name, []) + (value if isinstance(value, list) else [value])
        else:
            defaults[name] = value
    context.default_map = defaults


def _checked(values: dict[str, Any], known: set[str], path: Path) -> dict[str, Any]:
    import difflib

    options = {key.replace("-", "_"): value for key, value in values.items()}
    for key in options:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f" Did you mean {close[0].replace('_', '-')}?" if close else ""
            raise ModelError(f"--config {printable(path)}: there is no option {printable(key)}.{hint}")
    return {key: value if isinstance(value, list | bool) else str(value) for key, value in options.items()}


def config_lines(
    context: click.Context, params: list[click.Parameter], given: Mapping[str, Any]
) -> Iterator[str]:
    """``name = value  (source)`` for each option, in the notation of a settings file where there is one.

    Values are shown as they were given, before they are converted: a wrong one is shown too, with its source.
    """
    for param in params:
        if not isinstance(param, click.Option) or param.is_eager or param.name in _ACTIONS:
            continue
        value, source = param.consume_value(context, given)
        name = next(opt for opt in param.opts if opt.startswith("--")).strip("-")
        text = "(not set)" if param.value_is_missing(value) else json.dumps(value, default=str)
        yield f"{name} = {text}  ({_SOURCES.get(source, source.name.lower())})"
