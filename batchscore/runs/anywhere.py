"""``score`` with addresses: what is in buckets is copied to this machine, and a run into one is made in a copy and put there.

See :mod:`batchscore.runs.bucket_run` for what is put when, and :mod:`batchscore.runs.copies` for what is read.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscore.addresses import BUCKETS, Address, address_in
from batchscore.errors import BatchscoreError, NoInputError, NothingToDoError, UsageError, shown_below
from batchscore.runs import run
from batchscore.runs.bucket_run import BucketRun, refuse_foreign_objects
from batchscore.runs.copies import addresses_of, copy_bundle, copy_folder, copy_inputs, open_bucket
from batchscore.runs.dates import date_of_run
from batchscore.runs.folder import STAGING
from batchscore.runs.refusals import refusals_noted
from batchscore.system.leases import Lease
from batchscore.system.own_paths import OwnPath
from batchscore.system.scratch import scratch_folder

if TYPE_CHECKING:
    from batchscore.config import ScoreSettings
    from batchscore.model.loading import Models
    from batchscore.runs.result import RunResult
    from batchscore.system.terminal import ProgressFactory


def score(
    settings: ScoreSettings,
    progress: ProgressFactory,
    models: Models | None = None,
) -> RunResult:
    """Score files into a run folder, any of which may be in a bucket.

    Raises:
        BatchscoreError: as :func:`batchscore.runs.run.score`.
        BusyError: another run holds the address.
        OutputError: the store of the run folder keeps no conditions.
    """
    if not has_addresses(settings):
        return run.score(settings, progress, models)
    work = str(settings.bucket or settings.output.absolute()) + (" (planned)" if settings.dry_run else "")
    with scratch_folder(work) as scratch, contextlib.ExitStack() as stack:
        if settings.bucket is None or settings.dry_run:
            return run.score(copied(settings, scratch, stack), progress, models)
        store = open_bucket(settings.bucket)
        refuse_foreign_objects(store)
        with Lease(store, STAGING) as lease:
            copy = _copy_of(settings.bucket, scratch)
            place = BucketRun(store, lease, copy)
            place.fetch()
            try:
                with refusals_noted(copy, settings.date or date_of_run(copy.path)):
                    here = copied(settings, scratch, stack)
                result = run.score(here, progress, models, place)
                if result.status == "scored":
                    place.publish()
                elif result.status == "done":  # what a kill after the last write has left
                    place.forget_staged()
            except BaseException:
                with contextlib.suppress(
                    BatchscoreError, OSError
                ):  # the error that brought us here is the one to report
                    place.leave()
                raise
            return dataclasses.replace(result, bucket=settings.bucket)


@contextlib.contextmanager
def with_copies(settings: ScoreSettings, work: str) -> Iterator[ScoreSettings]:
    """The settings of many runs, whose model and earlier run are copied once, for as long as the block lasts.

    Raises:
        BatchscoreError: as :func:`score`, of the two.
    """
    if address_in(settings.model) is None and not isinstance(settings.baseline, Address):
        yield settings
        return
    with scratch_folder(work) as scratch, contextlib.ExitStack() as stack:
        yield dataclasses.replace(settings, **_fixed(settings, scratch, stack))


def has_addresses(settings: ScoreSettings) -> bool:
    """Whether anything of a run is in a bucket, or on the hub.

    Raises:
        UsageError: an address that cannot be meant, or that is none of those that a run can have.
    """
    others = [settings.bucket, settings.baseline if isinstance(settings.baseline, Address) else None]
    return addresses_of(settings.inputs) is not None or any([*others, address_in(settings.model)])


def _copy_of(bucket: Address, scratch: OwnPath) -> OwnPath:
    """The copy of a run folder: it has the last two names of its address, by which its night is known."""
    return (
        scratch / "/".join(["run", *bucket.key.split("/")[-2:]])
        if bucket.key
        else scratch / f"run/{bucket.bucket}"
    )


def copied(settings: ScoreSettings, scratch: OwnPath, stack: contextlib.ExitStack) -> ScoreSettings:
    """The same settings with what they name in buckets copied; messages call the copies by the addresses until ``stack`` ends."""
    changes: dict[str, Any] = {}
    if settings.bucket is not None:
        output = _copy_of(settings.bucket, scratch).path
        stack.enter_context(shown_below(output, str(settings.bucket)))
        changes["output"] = output
        if "latest" in (settings.baseline, settings.reuse):
            raise UsageError(
                "latest looks among the runs beside --output, and that is in a bucket. Name the run."
            )
        if settings.append_to is not None:
            raise UsageError(
                "--append-to takes predictions from a run folder on this machine, and --output is in a bucket."
            )
    if (addresses := addresses_of(settings.inputs)) is not None:
        folder = scratch / "in"
        for scheme in {each.scheme for each in addresses}:
            stack.enter_context(shown_below((folder / scheme).path, f"{scheme}:/"))
        try:
            found = copy_inputs(addresses, folder, settings.bucket, settings.pinned)
        except NoInputError as error:
            raise NothingToDoError(str(error)) if settings.skip_empty else error from None
        changes |= {"inputs": found.arguments, "pinned": found.pinned}
    changes |= _fixed(settings, scratch, stack)
    return dataclasses.replace(settings, **changes)


def _fixed(settings: ScoreSettings, scratch: OwnPath, stack: contextlib.ExitStack) -> dict[str, Any]:
    """What is the same for many runs, copied."""
    changes: dict[str, Any] = {}
    if (model := address_in(settings.model, BUCKETS)) is not None:
        changes["model"] = str(_shown(copy_bundle(model, scratch / "model"), model, stack))
    if isinstance(settings.baseline, Address):
        folder = copy_folder(settings.baseline, scratch / "baseline")
        changes["baseline"] = _shown(folder, settings.baseline, stack)
    return changes


def _shown(copy: OwnPath, address: Address, stack: contextlib.ExitStack) -> Path:
    stack.enter_context(shown_below(copy.path, str(address)))
    return copy.path
