"""``batchscore verify``, ``export`` and ``inspect``: check, convert or show a run, a bundle or a file."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import click

from batchscore.addresses import Place, address_in
from batchscore.cli.declaring import AnyPlace
from batchscore.cli.options import AnyName, LocalName
from batchscore.cli.output import json_summary, print_json, start_logs, verbosity
from batchscore.cli.signing import sign_option, trust_option
from batchscore.errors import as_named, printable, printable_json
from batchscore.system.terminal import boundary, show


@click.command()
@click.argument("path", type=AnyPlace())
@trust_option
@json_summary
@verbosity
def verify(path: Place, *, trust: tuple[Path, ...], quiet: bool, verbose: int, as_json: bool) -> None:
    """Check that the files of a run or a bundle are as they were written."""
    start_logs(quiet=quiet, verbose=verbose)
    with boundary(as_json):
        from batchscore.runs.inspection import verify as check
        from batchscore.runs.visiting import fetched

        with fetched(path) as copy:
            facts = check(copy, trust)
        if as_json:
            print_json(status="sound", exit_code=0, **facts)
        elif not quiet:
            signed = f", signed by {facts['signed_by']}" if facts.get("signed_by") else ""
            show(
                f"{printable(path)}: {facts['kind']}, {facts['files']} files, all as they were written{signed}"
            )


def _named(value: Any) -> Any:
    return as_named(value) if isinstance(value, str) else value


@click.command()
@click.argument("bundle", type=LocalName())
@sign_option
@json_summary
@verbosity
def export(bundle: str, *, sign: Path | None, quiet: bool, verbose: int, as_json: bool) -> None:
    """Add an int8 model for OpenVINO to a bundle, and show how much its answers differ."""
    start_logs(quiet=quiet, verbose=verbose)
    with boundary(as_json):
        from batchscore.model.exporting import export_int8

        done = export_int8(bundle, sign)
        if as_json:
            facts = {"file": done.file, "parity": done.parity, "problems": list(done.problems)}
            print_json(status="exported", exit_code=0, **facts)
        elif not quiet:
            parity = done.parity
            show(
                f"{printable(done.bundle)}: int8 changes {parity['labels_changed']} of {parity['texts']} labels, a "
                f"probability by {parity['mean_change']:.4f} on average and {parity['largest_change']:.4f} at most"
            )
            for problem in done.problems:
                show(f"beyond its limit: {problem}; --precision int8 will refuse it")


@click.command()
@click.argument("path", type=AnyName())
@trust_option
@json_summary
@verbosity
def inspect(path: str, *, trust: tuple[Path, ...], quiet: bool, verbose: int, as_json: bool) -> None:
    """Show what is in a file, a run or a bundle."""
    start_logs(quiet=quiet, verbose=verbose)
    with boundary(as_json):
        from batchscore.runs.inspection import bundle_lines
        from batchscore.runs.inspection import inspect as look
        from batchscore.runs.visiting import fetched

        address = address_in(path)
        with fetched(address) if address else contextlib.nullcontext(path) as copy:
            facts = {name: _named(value) for name, value in look(str(copy), trust).items()}
        if as_json:
            print_json(**facts)
            return
        if facts["kind"] == "bundle" and facts["training"] and facts["metrics"]:
            for line in bundle_lines(facts):
                show(printable(line))
            return
        for key, value in facts.items():
            show(f"{key}: {printable(value) if isinstance(value, str) else printable_json(value)}")
