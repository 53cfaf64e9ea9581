"""A scoring process from within: it makes the model of a recipe, and takes shards.

It reads a shard by its position, tokenises it while the device computes the one before, stages it, and answers what the journal
is to say. Where it does not see the run's files it gets texts and answers predictions. Both GPUs of one machine and the
actors of a Ray cluster are this.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import secrets
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from batchscore.config import ReadSettings
from batchscore.errors import BatchscoreError, ModelError, printable
from batchscore.model import scoring
from batchscore.model.answer_bits import deciding_fingerprint, goes_alone
from batchscore.model.bundle import Bundle, open_bundle
from batchscore.model.device_time import DeviceTime
from batchscore.model.loading import ModelSettings, load_model
from batchscore.model.model_files import times_of
from batchscore.model.references import RowsToScore
from batchscore.model.tuning import MIN_ROWS, is_worth_tuning, tuned_budget
from batchscore.records import GivenText, InputFile, Predictions, Rows, Shard
from batchscore.runs.engines.pool import MOST_AT_ONCE, Ready
from batchscore.runs.part_reading import PartReader
from batchscore.runs.shards import ShardWriter, Staged
from batchscore.system.allocator import give_back_freed_memory
from batchscore.system.cores import tokenising_threads
from batchscore.system.importing import installed_version
from batchscore.system.storage import write_bytes
from batchscore.version import __version__

if TYPE_CHECKING:
    from batchscore.model.scoring import Model
    from batchscore.system.own_paths import OwnPath

_LOG = logging.getLogger(__name__)
_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "pyarrow")
_FILES_LOOKED_AT = 64
"""Inputs of which a process looks whether it sees them; one that it does not see after all comes to light when it is read."""
_MOST_TOKENISERS = MOST_AT_ONCE - 2
PROBES = "probes"
"""In a run's staging folder: where processes show that they see it."""
QUESTION = "question"
"""What the parent leaves there."""


class Texts(NamedTuple):
    """What a process is given that does not read: the texts of each part of a shard."""

    parts: list[Sequence[GivenText]]


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """All that a scoring process is made from; it can be pickled."""

    bundle: Bundle
    wanted: ModelSettings
    files: tuple[InputFile, ...]
    """Those of the plan, with absolute paths."""
    read: ReadSettings
    writer: ShardWriter
    rows: int
    """Of the whole run."""
    first_texts: tuple[GivenText, ...]
    """Of its first rows, on which a new run's token budget is tuned; none if it need not be."""
    staging_format: int
    cores: int
    """Of its machine, for the process."""
    versions: Mapping[str, str]
    """Of the libraries here, which must be those of every process."""


def needs_texts(bundle: Bundle, wanted: ModelSettings, rows: int) -> bool:
    """Whether loading the model may need the first texts of a run: to tune on them, or to hold a plain folder against them."""
    may_tune = wanted.compute.max_batch_tokens is None and wanted.compute.device != "cpu" and rows >= MIN_ROWS
    return may_tune or bundle.canaries is None


def versions() -> dict[str, str]:
    """The versions of the libraries that answers and staged files depend on."""
    return {name: installed_version(name) for name in _LIBRARIES} | {"batchscore": __version__}


class _Begun(NamedTuple):
    """A shard on the device."""

    rows: list[Rows]
    ready: scoring.Prepared
    computation: scoring.Computation


class ShardScoring:
    """Scores the shards of a run; used by one thread, works in several."""

    def __init__(self, recipe: Recipe) -> None:
        """Open the bundle.

        Raises:
            ModelError: the model or the libraries are not those of the machine where the run was started.
        """
        self._recipe = recipe
        self._place = socket.gethostname()
        if (found := versions()) != recipe.versions:
            others = ", ".join(
                f"{name} {found[name]} instead of {wanted}"
                for name, wanted in recipe.versions.items()
                if found[name] != wanted
            )
            raise ModelError(f"The machine {printable(self._place)} has {others}. Install the same there.")
        self._bundle = self._bundle_here()
        self._reader = PartReader(recipe.files, recipe.read)
        self._model: Model | None = None
        self._stack = contextlib.ExitStack()

    def _bundle_here(self) -> Bundle:
        """The bundle, its files being those of this machine."""
        bundle = self._recipe.bundle
        reason = "it is another one there"
        try:
            if _has_same_times(bundle):
                return bundle
            here = open_bundle(str(bundle.path))
            if here.fingerprint == bundle.fingerprint:
                return dataclasses.replace(bundle, files=here.files)
        except ModelError as error:
            reason = str(error)
        raise ModelError(
            f"{printable(bundle.path)} is not the same model on the machine {printable(self._place)}: {reason} Put the folder there "
            "under the same path."
        )

    def get_ready(self, recorded: Mapping[str, Any]) -> Ready:
        """Load the model and check it; the first process (nothing is ``recorded``) tunes the token budget if that pays.

        Raises:
            BatchscoreError: the model cannot be loaded, or does not answer as it should.
        """
        recipe = self._recipe
        rows = RowsToScore(recipe.rows, lambda: recipe.first_texts)
        model, compute = load_model(self._bundle, recipe.wanted, recorded, rows)
        is_fixed = recorded or recipe.wanted.compute.max_batch_tokens is not None
        if not is_fixed and recipe.first_texts and is_worth_tuning(model, recipe.rows):
            budget = tuned_budget(model, recipe.first_texts)
            _LOG.info("%d tokens in a micro-batch are best on %s", budget, model.backend.device)
            compute = {**compute, "max_batch_tokens": budget}
        model = model.with_inference(max_batch_tokens=compute["max_batch_tokens"])
        tokenisers = min(tokenising_threads(recipe.cores), _MOST_TOKENISERS) if model.tokenisers else 0
        self._model = dataclasses.replace(model, tokenisers=tokenisers)
        self._start_threads(self._model)
        alone = goes_alone(model)
        deciding = deciding_fingerprint(self._bundle, compute, recipe.staging_format, alone=alone)
        place = f"{self._place} ({model.backend.device})"
        return Ready(compute, deciding, self._reply(), place, at_once=2 + tokenisers)

    def _start_threads(self, model: Model) -> None:
        begin = self._stack.enter_context(model.backend.one_core_each())
        executor = self._stack.enter_context
        self._workers = executor(ThreadPoolExecutor(model.workers, "worker", begin))
        self._reading = executor(ThreadPoolExecutor(1, "read"))
        self._tokenising = executor(ThreadPoolExecutor(max(model.tokenisers, 1), "tokenise"))
        self._staging = executor(ThreadPoolExecutor(1, "stage"))
        self._device = DeviceTime()

    def _reply(self) -> str:
        """Show that this process sees the run's staging folder, and can write there; empty if not, nor the inputs."""
        files = self._recipe.files
        try:
            for file in files[:: len(files) // _FILES_LOOKED_AT + 1]:
                if Path(file.path).stat().st_size != file.size:
                    return ""
            return answer(self._recipe.writer.staging.folder / PROBES)
        except (OSError, BatchscoreError) as error:
            _LOG.info("the run's files are not seen here: %s", printable(error)[:200])
            return ""

    def begin(self, payload: Shard | Texts) -> Future[Any]:
        """Begin a shard; the future has what was staged (:class:`~batchscore.runs.shards.Staged`), of texts the predictions.

        Some are read and tokenised while another is computed and a third staged; the caller bounds how many there are.
        """
        read = self._reading.submit(self._read, payload)
        begun = self._tokenising.submit(self._begin, read)
        return self._staging.submit(self._finish, payload, begun)

    def _read(self, payload: Shard | Texts) -> tuple[list[Rows], list[Sequence[GivenText]]]:
        """The rows of each part, without texts, and the texts; no rows if they are not read here."""
        if isinstance(payload, Texts):
            return [], payload.parts
        rows = [self._reader.read(part) for part in payload.parts]
        return [each.without_texts() for each in rows], [each.given_texts for each in rows]

    def _begin(self, read: Future[tuple[list[Rows], list[Sequence[GivenText]]]]) -> _Begun:
        model = self._model_here()
        rows, texts = read.result()
        ready = scoring.prepare_parts(texts, model)
        return _Begun(rows, ready, scoring.Computation(ready, model, self._workers.map, device=self._device))

    def _finish(self, payload: Shard | Texts, begun: Future[_Begun]) -> Staged | list[Predictions]:
        rows, ready, computation = begun.result()
        computed = computation.result()
        computed.work["waiting_seconds"] = self._device.waited()
        predictions = scoring.conclude_parts(ready, computed, self._model_here())
        if isinstance(payload, Texts):
            return predictions
        staged = self._recipe.writer.stage(payload, rows, predictions)
        give_back_freed_memory()
        return staged

    def _model_here(self) -> Model:
        if self._model is None:
            raise RuntimeError("the process was given a shard before it was ready")
        return self._model

    def close(self) -> None:
        """Wait for what was begun."""
        self._stack.close()


def ask(folder: OwnPath) -> None:
    """Leave what processes have to answer that see the folder."""
    write_bytes(folder / QUESTION, secrets.token_hex(16).encode())


def answer(folder: OwnPath) -> str:
    """Answer it beside it; returns the name of the answer.

    Raises:
        OSError, StorageError: the folder is not seen here, or cannot be written to.
    """
    name = secrets.token_hex(16)
    write_bytes(folder / name, (folder / QUESTION).read_bytes() + name.encode())
    return name


def is_answered(folder: OwnPath, name: str) -> bool:
    """Whether the answer is seen where the question was asked."""
    try:
        return (folder / name).read_bytes() == (folder / QUESTION).read_bytes() + name.encode()
    except (OSError, ValueError):
        return False


def _has_same_times(bundle: Bundle) -> bool:
    """Whether the bundle's files are the very ones that were hashed, by inode and times."""
    try:
        return times_of(bundle.path) == bundle.files.times
    except OSError:
        return False
