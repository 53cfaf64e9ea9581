"""A bundle and compute settings in, a checked model out.

``--precision auto`` takes the fastest precision whose canaries agree. A lower precision is tried only if a matmul in it
measures clearly faster on this machine, and is used only if no canary changes its label and no probability changes by more
than the tolerance.

A plain folder has no canaries; plain transformers answers reference texts in their place
(:mod:`batchscore.model.references`). What is asked for with ``--backend transformers`` is only compared with plain
transformers for its padding (:mod:`batchscore.model.probing`), as is a bundle that transformers runs.
Our own code for a bundle is compared with its canaries, which were computed that way.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from batchscore.errors import ModelError, UsageError, printable
from batchscore.model.backends import PLAIN, open_backend
from batchscore.model.bundle import open_bundle
from batchscore.model.canaries import CANARY_TOLERANCE, CanaryCheck, check_canaries
from batchscore.model.foreign import refuse_other_models
from batchscore.model.model_files import times_of
from batchscore.model.probing import padded_safely
from batchscore.model.references import (
    OwnTextsDifferError,
    References,
    RowsToScore,
    compute_references,
    find_references,
    has_their_tokens,
    trusted,
    way_of,
)
from batchscore.model.scoring import InferenceSettings, Model
from batchscore.model.signing import trusted_keys
from batchscore.model.thresholds import thresholds_of
from batchscore.model.tokenization import Tokenizer
from batchscore.system.cores import tokenising_threads, usable_cores

if TYPE_CHECKING:
    from batchscore.config import ComputeSettings, ScoreSettings
    from batchscore.model.backends import Backend
    from batchscore.model.bundle import Bundle
    from batchscore.model.probing import Difference

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
NO_ROWS = RowsToScore()
PLAIN_PRECISIONS = ("fp32", "bf16", "fp16")
_GPU_WORKERS = 2
"""One waits for its results while the other's micro-batch runs."""
DEFAULT_BATCH_TOKENS = {"cpu": 2048, "cuda": 65_536}
"""If none is given or measured; :mod:`batchscore.model.tuning` says why a CPU's is fixed."""


@dataclasses.dataclass(frozen=True, slots=True)
class ModelSettings:
    """What is asked of a model when it is loaded: how to compute, and how texts are treated.

    Whatever is not ``compute`` is a field of :class:`~batchscore.model.scoring.InferenceSettings` too, by the same name.
    """

    compute: ComputeSettings
    long_text: str
    missing_pair: str = "skip"
    thresholds: tuple[float, ...] = ()
    below: str = "next"

    @classmethod
    def of(cls, settings: ScoreSettings, bundle: Bundle) -> ModelSettings:
        """What a run asks of its model; where it says nothing of long texts, missing ones and thresholds, the bundle's word counts."""
        asked = {field.name: getattr(settings, field.name) for field in dataclasses.fields(cls)}
        of_bundle = {name: getattr(settings, name) or getattr(bundle, name) for name in BUNDLE_SETTINGS}
        decisions = {
            "thresholds": thresholds_of(bundle, settings.thresholds),
            "below": settings.below or "next",
        }
        return cls(**{**asked, **of_bundle, **decisions})

    def inference(self, max_batch_tokens: int) -> InferenceSettings:
        """The settings of a model with this token budget."""
        fields = dataclasses.fields(self)
        shared = {field.name: getattr(self, field.name) for field in fields if field.name != "compute"}
        return InferenceSettings(max_batch_tokens=max_batch_tokens, **shared)


BUNDLE_SETTINGS = ("long_text", "missing_pair")
"""Settings of a run that are the bundle's where the run leaves them ``None``."""


class Models:
    """Where a run gets its model: loaded from disk each time."""

    def open(self, path: str, revision: str | None, trust: Sequence[Path] = ()) -> Bundle:
        """Open the bundle and hash every file; errors as :func:`~batchscore.model.bundle.open_bundle`."""
        bundle = open_bundle(path, revision, trust)
        refuse_other_models(bundle.path)
        return bundle

    def load(
        self, bundle: Bundle, wanted: ModelSettings, recorded: Mapping[str, Any], rows: RowsToScore = NO_ROWS
    ) -> tuple[Model, dict[str, Any]]:
        """Load the model; see :func:`load_model`."""
        return load_model(bundle, wanted, recorded, rows)


class KeptModels(Models):
    """Keeps the last model, for many runs in one process; a bundle whose files changed is opened again."""

    def __init__(self) -> None:
        self._opened: tuple[Any, Bundle] | None = None
        self._loaded: tuple[tuple[Bundle, ModelSettings], tuple[Model, dict[str, Any]]] | None = None

    def open(self, path: str, revision: str | None, trust: Sequence[Path] = ()) -> Bundle:
        """Open the bundle; its files are hashed again only if a size, time or inode changed (:func:`times_of`), or a trusted key."""
        times = times_of(Path(path)) if Path(path).is_dir() else None
        key = path, revision, times, trusted_keys(trust)
        if self._opened is None or self._opened[0] != key:
            self._opened = key, super().open(path, revision, trust)
        return self._opened[1]

    def load(
        self, bundle: Bundle, wanted: ModelSettings, recorded: Mapping[str, Any], rows: RowsToScore = NO_ROWS
    ) -> tuple[Model, dict[str, Any]]:
        """The kept model, if it is the one that would be loaded."""
        key = bundle, wanted
        if self._loaded is not None and self._loaded[0] == key:
            model, compute = self._loaded[1]
            if not recorded or recorded == compute:
                return model, dict(compute)
        loaded = super().load(bundle, wanted, recorded, rows)
        self._loaded = key, loaded
        _LOG.info("model loaded: %s", bundle.path)
        return loaded[0], dict(loaded[1])


def load_model(
    bundle: Bundle, wanted: ModelSettings, recorded: Mapping[str, Any], rows: RowsToScore = NO_ROWS
) -> tuple[Model, dict[str, Any]]:
    """Load the model, check its canaries or references, and return both it and its compute settings.

    ``recorded`` are those of an earlier start of the same run; they win, so that a resumed run is the same to the last bit.
    ``rows`` are what it is to score.

    Raises:
        ModelError: it cannot be loaded, or its canaries disagree.
        UsageError: no such device, backend or precision.
    """
    asked = wanted.compute
    name, precision = recorded.get("backend", asked.backend), recorded.get("precision", asked.precision)
    device = recorded.get("device", asked.device)
    if needs_torch(name, precision):
        from batchscore.model.backends.torch_backend import resolve_device

        device = resolve_device(device)
    elif bundle.takes_pairs:
        raise UsageError(
            "int8 is for one text a row: leave out --text-pair-column, or take another --precision."
        )
    else:
        from batchscore.model.backends.openvino_backend import int8_bundle

        bundle, precision, device = int8_bundle(bundle), "int8", "cpu" if device == "auto" else device
    budget = recorded.get("max_batch_tokens") or asked.max_batch_tokens
    budget = int(budget or DEFAULT_BATCH_TOKENS.get(device.partition(":")[0], DEFAULT_BATCH_TOKENS["cpu"]))
    loading = _Loading(wanted, name, precision, device, budget, recorded)
    checked = None
    if _takes_references(bundle, asked, recorded) and precision in ("auto", *PLAIN_PRECISIONS):
        checked = loading.held_against_references(bundle, rows)
    model, facts = checked or loading.held_against_canaries(bundle)
    bundle.refuse_changed()
    return model, {
        "backend": model.backend.name,
        "device": model.backend.device,
        "precision": model.backend.precision,
        "padding": model.inference.padding_mode,
        "max_batch_tokens": budget,
        "long_text": wanted.long_text,
        **facts,
    }


def _takes_references(bundle: Bundle, asked: ComputeSettings, recorded: Mapping[str, Any]) -> bool:
    """Whether this is a plain folder that our own code may run; a run begun without references goes on without."""
    may_be_ours = bundle.canaries is None and asked.backend in ("auto", "torch")
    return may_be_ours and (not recorded or recorded.get("references") is not None)


@dataclasses.dataclass(frozen=True, slots=True)
class _Loading:
    """Which backends, precisions and paddings are tried for one model; ``auto`` where nothing is recorded or asked for."""

    wanted: ModelSettings
    backend: str
    precision: str
    device: str
    budget: int
    recorded: Mapping[str, Any]

    def held_against_canaries(self, bundle: Bundle) -> tuple[Model, dict[str, Any]]:
        """The model of a bundle, or of a folder run by transformers as it is."""
        tokenizer = Tokenizer(bundle)
        candidates = self._candidates(self._precisions(has_canaries=bundle.canaries is not None))
        is_auto = self.backend == "auto" and not self.wanted.compute.is_compiled
        if is_auto and bundle.canaries is not None and candidates[-1][1] in PLAIN_PRECISIONS:
            candidates.append(("transformers", candidates[-1][1]))  # in case our own code disagrees

        def checked(candidate: tuple[str, str]) -> tuple[Model, CanaryCheck | None]:
            return _checked(self._open(bundle, tokenizer, candidate), self.recorded.get("padding"))

        model, check = _first_agreeing(candidates, checked)
        return model, {"canaries": check._asdict() if check else None}

    def held_against_references(
        self, bundle: Bundle, rows: RowsToScore
    ) -> tuple[Model, dict[str, Any]] | None:
        """The model of a plain folder; None if our tokenizer differs from that of transformers.

        References from the cache with which nothing agrees are computed again.
        """
        tokenizer = Tokenizer(trusted(bundle))

        def open_plain() -> Model:
            return self._open(bundle, Tokenizer(bundle), ("transformers", "fp32"))

        found, plain = find_references(bundle, tokenizer, open_plain, rows, self.device)
        try:
            return self._agreeing(bundle, tokenizer, found, plain)
        except ModelError as error:
            if not found.is_from_cache:
                raise
            _LOG.info("%s; the references are computed again", printable(error))
        plain = plain or open_plain()
        again = dataclasses.replace(compute_references(plain), own=found.own)
        return self._agreeing(bundle, tokenizer, again, plain)

    def _agreeing(
        self, bundle: Bundle, tokenizer: Tokenizer, references: References, plain: Model | None
    ) -> tuple[Model, dict[str, Any]] | None:
        """The fastest model that agrees with the references, which are then kept."""
        if plain is not None and not has_their_tokens(references, plain.tokenizer, tokenizer):
            _LOG.info("%s: its tokenizer.json is not all of its tokenizer", printable(bundle.path))
            return None
        canaried, ruled_out = references.bundle(bundle), []

        def checked(candidate: tuple[str, str]) -> tuple[Model, Difference]:
            is_loaded = plain is not None and candidate == ("transformers", "fp32")
            model = self._open(canaried, tokenizer, candidate, plain.backend if is_loaded and plain else None)
            mode = self.recorded.get("padding") or references.padding_mode
            if model.backend.name in PLAIN:
                model = model.with_inference(padding_mode=mode)
                if references.is_fresh and model.backend.name != "fresh":
                    model = self._open(canaried, tokenizer, ("fresh", candidate[1])).with_inference(
                        padding_mode=mode
                    )
            try:
                return model, references.check(model)
            except OwnTextsDifferError:
                ruled_out.append(way_of(*candidate))
                raise

        model, difference = _first_agreeing(self._referenced_candidates(bundle, references), checked)
        if not references.is_from_cache or references.own[0]:
            references.keep(bundle, self.device, ruled_out)
        said = self.recorded.get("references") or references.facts(difference)
        return model, {"canaries": None, "references": said}

    def _referenced_candidates(self, bundle: Bundle, references: References) -> list[tuple[str, str]]:
        if self.backend != "auto":
            return self._candidates(self._precisions(has_canaries=True))
        from batchscore.model.backends.torch_backend import has_own_encoder

        is_ours = has_own_encoder(bundle) or self.wanted.compute.is_compiled
        found = []
        for backend, precision in self._candidates(self._precisions(has_canaries=True)):
            found += [(backend, precision)] * is_ours
            found += [("transformers", precision)] * (backend == "auto")
        kept = [each for each in found if way_of(*each) not in references.ruled_out]
        return kept or found[-1:]

    def _candidates(self, precisions: Sequence[str]) -> list[tuple[str, str]]:
        """Backend and precision, fastest first."""
        is_compiled = self.wanted.compute.is_compiled
        return [(_backend_name(self.backend, each, is_compiled=is_compiled), each) for each in precisions]

    def _precisions(self, *, has_canaries: bool) -> list[str]:
        """Precisions to try, fastest first, float32 last; without canaries a CPU has float32 only."""
        if self.precision != "auto":
            return [self.precision]
        if not has_canaries and self.device == "cpu":
            return ["fp32"]
        from batchscore.model.backends.torch_backend import faster_precisions

        return [*faster_precisions(self.device), "fp32"]

    def _open(
        self, bundle: Bundle, tokenizer: Tokenizer, candidate: tuple[str, str], loaded: Backend | None = None
    ) -> Model:
        backend = loaded or open_backend(candidate[0], bundle, self.device, candidate[1])
        workers = self.wanted.compute.workers or (usable_cores() if backend.device == "cpu" else _GPU_WORKERS)
        tokenisers = 0 if backend.device == "cpu" else tokenising_threads()
        return Model(bundle, tokenizer, backend, self.wanted.inference(self.budget), workers, tokenisers)


def _first_agreeing(
    candidates: Sequence[tuple[str, str]], checked: Callable[[tuple[str, str]], tuple[Model, T]]
) -> tuple[Model, T]:
    """The model of the first backend and precision that scores and agrees, with its check.

    Raises:
        ModelError: none does (the last one's reason).
    """
    *others, last = candidates
    for candidate in others:
        try:
            return checked(candidate)
        except ModelError as error:
            _LOG.info("%s: %s; trying the next", candidate, printable(error))
    return checked(last)


def _checked(model: Model, padding_mode: str | None) -> tuple[Model, CanaryCheck | None]:
    """The model and its canary check; padded as in an earlier start (``padding_mode``), or as probed.

    Raises:
        ModelError: it cannot score the canaries, or they disagree.
    """
    if padding_mode is not None:
        model = model.with_inference(padding_mode=padding_mode)
    elif model.backend.name == "transformers":
        model = padded_safely(model)
    check = check_canaries(model)
    if check is not None and not check.agrees:
        raise _disagreement(check, model)
    return model, check


def _backend_name(name: str, precision: str, *, is_compiled: bool) -> str:
    """The backend for a precision: the compiled one if asked for and available."""
    can_be = precision in PLAIN_PRECISIONS and name in ("auto", "torch")
    return "compiled" if is_compiled and can_be else name


def needs_torch(backend: str, precision: str) -> bool:
    """Whether torch runs the model; otherwise it need not be imported."""
    return backend != "openvino" and (backend, precision) != ("auto", "int8")


def _disagreement(check: CanaryCheck, model: Model) -> ModelError:
    return ModelError(
        f"{printable(model.bundle.path)} does not answer as it did when it was trained: of its canaries "
        f"{check.labels_changed} changed their label, the largest change of a probability is "
        f"{check.largest_change:.4f} (allowed: {CANARY_TOLERANCE}), on {model.backend.device} in "
        f"{model.backend.precision}. Copy the bundle again, or try --device cpu --precision fp32."
    )
