"""A bundle and compute settings in, a checked model out.

``--precision auto`` takes the fastest precision whose canaries agree. A lower precision is tried only if a matmul in it
measures clearly faster on this machine, and is used only if no canary changes its label and no probability changes by more
than the tolerance. Without canaries a CPU uses float32; a GPU's lower precisions are compared with the probes.

Models run by transformers are first compared with plain transformers, one text at a time (:mod:`batchscore.model.probing`).
Our own encoder is compared with the bundle's canaries, which were computed that way.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscore.errors import ModelError, printable
from batchscore.model.backends import open_backend
from batchscore.model.bundle import open_bundle
from batchscore.model.probing import padded_safely
from batchscore.model.scoring import CANARY_TOLERANCE, CanaryCheck, InferenceSettings, Model, check_canaries
from batchscore.model.thresholds import thresholds_of
from batchscore.model.tokenization import Tokenizer
from batchscore.system.cores import usable_cores

if TYPE_CHECKING:
    from batchscore.config import ComputeSettings, ScoreSettings
    from batchscore.model.bundle import Bundle

_LOG = logging.getLogger(__name__)
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
    thresholds: tuple[float, ...] = ()

    @classmethod
    def of(cls, settings: ScoreSettings, bundle: Bundle) -> ModelSettings:
        """What a run asks of its model; of long texts and thresholds the bundle has its say where the run has none."""
        asked = {field.name: getattr(settings, field.name) for field in dataclasses.fields(cls)}
        resolved = {
            "long_text": settings.long_text or bundle.long_text,
            "thresholds": thresholds_of(bundle, settings.thresholds),
        }
        return cls(**{**asked, **resolved})

    def inference(self, max_batch_tokens: int) -> InferenceSettings:
        """The settings of a model with this token budget."""
        fields = dataclasses.fields(self)
        shared = {field.name: getattr(self, field.name) for field in fields if field.name != "compute"}
        return InferenceSettings(max_batch_tokens=max_batch_tokens, **shared)


class Models:
    """Where a run gets its model: loaded from disk each time."""

    def open(self, path: str, revision: str | None) -> Bundle:
        """Open the bundle and hash every file; errors as :func:`~batchscore.model.bundle.open_bundle`."""
        return open_bundle(path, revision)

    def load(
        self, bundle: Bundle, wanted: ModelSettings, recorded: Mapping[str, Any]
    ) -> tuple[Model, dict[str, Any]]:
        """Load the model; see :func:`load_model`."""
        return load_model(bundle, wanted, recorded)


class KeptModels(Models):
    """Keeps the last model, for many runs in one process; a bundle whose files changed is opened again."""

    def __init__(self) -> None:
        self._opened: tuple[Any, Bundle] | None = None
        self._loaded: tuple[tuple[Bundle, ModelSettings], tuple[Model, dict[str, Any]]] | None = None

    def open(self, path: str, revision: str | None) -> Bundle:
        """Open the bundle; its files are hashed again only if a size, time or inode changed."""
        key = path, revision, _file_stats(Path(path))
        if self._opened is None or self._opened[0] != key:
            self._opened = key, super().open(path, revision)
        return self._opened[1]

    def load(
        self, bundle: Bundle, wanted: ModelSettings, recorded: Mapping[str, Any]
    ) -> tuple[Model, dict[str, Any]]:
        """The kept model, if it is the one that would be loaded."""
        key = bundle, wanted
        if self._loaded is not None and self._loaded[0] == key:
            model, compute = self._loaded[1]
            if not recorded or recorded == compute:
                return model, dict(compute)
        loaded = super().load(bundle, wanted, recorded)
        self._loaded = key, loaded
        _LOG.info("model loaded: %s", bundle.path)
        return loaded[0], dict(loaded[1])


def _file_stats(folder: Path) -> list[tuple[str, int, int, int]]:
    """Name, size, modification time and inode of each file."""
    facts = [(path.name, path.stat()) for path in sorted(folder.rglob("*"))]
    return [(name, each.st_size, each.st_mtime_ns, each.st_ino) for name, each in facts]


def load_model(
    bundle: Bundle, wanted: ModelSettings, recorded: Mapping[str, Any]
) -> tuple[Model, dict[str, Any]]:
    """Load the model, check its canaries, and return both it and its compute settings.

    ``recorded`` are those of an earlier start of the same run; they win, so that a resumed run is the same to the last bit.

    Raises:
        ModelError: it cannot be loaded, or its canaries disagree.
        UsageError: no such device, backend or precision.
    """
    tokenizer, asked = Tokenizer(bundle), wanted.compute
    name, precision = recorded.get("backend", asked.backend), recorded.get("precision", asked.precision)
    device = recorded.get("device", asked.device)
    if needs_torch(name, precision):
        from batchscore.model.backends.torch_backend import resolve_device

        device = resolve_device(device)
    else:
        from batchscore.model.backends.openvino_backend import int8_bundle

        bundle, precision, device = int8_bundle(bundle), "int8", "cpu" if device == "auto" else device
    budget = recorded.get("max_batch_tokens") or asked.max_batch_tokens
    budget = budget or DEFAULT_BATCH_TOKENS.get(device.partition(":")[0], DEFAULT_BATCH_TOKENS["cpu"])
    precisions = _candidates(device, bundle) if precision == "auto" else [precision]
    candidates = [(_backend_name(name, each, is_compiled=asked.is_compiled), each) for each in precisions]
    if (
        name == "auto" and bundle.canaries is not None and precisions[-1] in PLAIN_PRECISIONS
    ):  # in case the disagreement comes from our own encoder
        candidates.append(("transformers", precisions[-1]))

    def open_model(candidate: tuple[str, str]) -> Model:
        backend = open_backend(candidate[0], bundle, device, candidate[1])
        workers = asked.workers or (usable_cores() if backend.device == "cpu" else _GPU_WORKERS)
        return Model(bundle, tokenizer, backend, wanted.inference(int(budget)), workers)

    model, check = _first_agreeing(candidates, open_model, recorded.get("padding"))
    return model, {
        "backend": model.backend.name,
        "device": model.backend.device,
        "precision": model.backend.precision,
        "padding": model.inference.padding_mode,
        "max_batch_tokens": int(budget),
        "long_text": wanted.long_text,
        "canaries": check._asdict() if check else None,
    }


def _first_agreeing(
    candidates: Sequence[tuple[str, str]],
    open_model: Callable[[tuple[str, str]], Model],
    padding_mode: str | None,
) -> tuple[Model, CanaryCheck | None]:
    """The model of the first backend and precision that scores and whose canaries agree.

    Raises:
        ModelError: none does (the last one's reason), or one cannot be loaded.
    """
    *others, last = candidates
    for candidate in others:
        model = open_model(candidate)
        try:
            return _checked(model, padding_mode)
        except ModelError as error:
            _LOG.info("%s: %s; trying the next", candidate, printable(error))
    return _checked(open_model(last), padding_mode)


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


def _candidates(device: str, bundle: Bundle) -> list[str]:
    """Precisions to try, fastest first, float32 last."""
    if bundle.canaries is None and device == "cpu":
        return ["fp32"]
    from batchscore.model.backends.torch_backend import faster_precisions

    return [*faster_precisions(device), "fp32"]


def _disagreement(check: CanaryCheck, model: Model) -> ModelError:
    return ModelError(
        f"{printable(model.bundle.path)} does not answer as it did when it was trained: of its canaries "
        f"{check.labels_changed} changed their label, the largest change of a probability is "
        f"{check.largest_change:.4f} (allowed: {CANARY_TOLERANCE}), on {model.backend.device} in "
        f"{model.backend.precision}. Copy the bundle again, or try --device cpu --precision fp32."
    )
