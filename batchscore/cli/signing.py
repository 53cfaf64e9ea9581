"""``--sign``, ``--trust`` and ``batchscore sign``."""

from __future__ import annotations

from pathlib import Path

import click

from batchscore.cli.declaring import LocalPath, option
from batchscore.cli.output import json_summary, print_json, start_logs, verbosity
from batchscore.errors import printable
from batchscore.system.terminal import boundary, show

sign_option = option(
    "--sign",
    type=LocalPath(),
    metavar="KEY",
    help="Sign the bundle with this private Ed25519 key of OpenSSH, for --trust (extra: sign). A passphrase is asked for, or comes "
    "from BATCHSCORE_SIGN_PASSPHRASE.",
)
trust_option = option(
    "--trust",
    type=LocalPath(),
    multiple=True,
    metavar="KEY",
    help="Take only a bundle that this key signed: a file with public keys, one a line, such as KEY.pub (extra: sign). Repeatable.",
)


@click.command()
@click.argument("bundle", type=LocalPath())
@option(
    "--key",
    required=True,
    type=LocalPath(),
    metavar="KEY",
    help="The private Ed25519 key of OpenSSH. A passphrase is asked for, or comes from BATCHSCORE_SIGN_PASSPHRASE.",
)
@json_summary
@verbosity
def sign(bundle: Path, key: Path, *, quiet: bool, verbose: int, as_json: bool) -> None:
    """Sign a bundle, so that `batchscore score --trust KEY.pub` takes it (extra: sign)."""
    start_logs(quiet=quiet, verbose=verbose)
    with boundary(as_json):
        from batchscore.model.bundle import sign_bundle
        from batchscore.model.signing import signing_key

        signed_by = sign_bundle(bundle, signing_key(key))
        if as_json:
            print_json(status="signed", exit_code=0, output=str(bundle), signed_by=signed_by)
        elif not quiet:
            show(f"{printable(bundle)}: signed by {signed_by}")
