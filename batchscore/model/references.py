"""Reference answers of a plain folder: what canaries are to a bundle.

A folder without ``batchscore.json`` brings no answers that our own code or a lower precision could be held against. So
plain transformers gives them once, in float32, one text at a time, to texts that are no secret: the probes
(:mod:`batchscore.model.probing`) and sample reviews of ours, 32 in all. The answers are kept in the user's cache under the
fingerprint of the folder and the versions of the libraries, each with a digest of its text and tokens. From the second night
on neither transformers nor its model is loaded for them.

Whatever scores the rows is held against these answers at every start, in micro-batches like those of the rows. In float32
it may differ by rounding alone, as :mod:`batchscore.model.probing` defines it; in a lower precision a probability may change
by :data:`~batchscore.model.canaries.CANARY_TOLERANCE`. That also bounds the labels: one changes only where two probabilities
are closer than twice that, which is a tie and no evidence.

A larger run adds the first distinct texts of its own, as reviews may be in another language than the samples: one for each
:data:`ROWS_PER_TEXT` rows, 64 at most, within 20 s. Plain transformers takes two to five times as long for a text as
we do, so that is 2 % of the run at most. The number depends on the rows, not on a clock, so that a run done again takes the
same. These texts stay in memory: the cache notes how many there were, and which way of computing they ruled out.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchscore import samples
from batchscore.config import fingerprint
from batchscore.errors import ModelError, printable
from batchscore.model.bundle import N_CANARIES, Bundle, Canaries
from batchscore.model.canaries import CANARY_TOLERANCE
from batchscore.model.probing import Difference, compare, probe, probe_texts, reference_answers
from batchscore.model.scoring import LONGEST_PROBE, Computation, Model, prepare
from batchscore.model.tokenization import Tokenizer
from batchscore.records import Status, status_of
from batchscore.system.cache import keep, recall
from batchscore.system.importing import installed_version
from batchscore.version import __version__

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.records import GivenText, Text

_LOG = logging.getLogger(__name__)
_KIND = "references"
_FORMAT = 1
_VERSIONS = ("torch", "transformers", "tokenizers")
ROWS_PER_TEXT = 200
"""Rows of a run for each text of its own that is compared."""
_MOST_OWN = 64
_OWN_SECONDS = 20.0
_OWN_AT_A_TIME = 16
_LONGEST_SAMPLE = 400
"""Characters."""
_SCRIPTS = (
    "Ça, Ünïcôdé: 好片子, фильм! \uff26\uff35\uff2c\uff2c \ufb01 한국어 فيلم 🎬👍🏽 <b>x</b> [SEP] don't A.B.C. "
    "1,000\u00a0$\u200b"
)
"""What tokenizers normalise in different ways."""


class RowsToScore(NamedTuple):
    """The rows of a run, as far as choosing texts to compare needs them."""

    number: int = 0
    first_texts: Callable[[], Iterable[GivenText]] = tuple
    """Texts, or pairs of texts, of the first rows, read only if they are needed."""

    @property
    def own_texts(self) -> int:
        """How many texts of its own this run compares."""
        return min(self.number // ROWS_PER_TEXT, _MOST_OWN)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class References:
    """Texts, and the float32 logits ``[n, C]`` that plain transformers gives each alone."""

    texts: tuple[Text, ...]
    logits: NDArray[np.float32]
    digests: tuple[str, ...]
    """Of each text and its tokens."""
    padding_mode: str
    """In which transformers may be given micro-batches."""
    is_fresh: bool
    """Whether transformers needs a fresh copy of the model for each of them."""
    own: tuple[tuple[Text, ...], NDArray[np.float32]]
    """Texts of this run with their logits; none once a run has compared as many."""
    own_before: int = 0
    """How many texts of earlier runs were compared."""
    ruled_out: tuple[str, ...] = ()
    """Ways of computing (:func:`way_of`) that differed on texts of a run."""
    is_from_cache: bool = False

    def bundle(self, bundle: Bundle) -> Bundle:
        """The folder as a bundle: with these references as its canaries."""
        return dataclasses.replace(bundle, canaries=Canaries(self.texts, bundle.answers(self.logits)))

    def check(self, model: Model) -> Difference:
        """Compare a model; returns the largest differences.

        Raises:
            ModelError: it cannot score a text, or differs by more than its precision may.
        """
        found = _difference(model, self.texts, self.logits)
        _refuse(found, model)
        if not self.own[0]:
            return found
        on_own = _difference(model, *self.own)
        try:
            _refuse(on_own, model)
        except ModelError as error:
            raise OwnTextsDifferError(str(error)) from error
        return Difference(*np.maximum(found, on_own).tolist())

    def facts(self, difference: Difference) -> dict[str, Any]:
        """What ``run.json`` says about them."""
        return {
            "from": "cache" if self.is_from_cache else "computed",
            "texts": len(self.texts),
            "texts_of_the_run": len(self.own[0]),
            "largest_change": difference.probability,
        }

    def keep(self, bundle: Bundle, device: str, ruled_out: Sequence[str]) -> None:
        """Keep them in the user's cache, with the ways of computing that this run's texts ruled out."""
        keep(
            _KIND,
            _key(bundle, device),
            {
                "digests": list(self.digests),
                "logits": self.logits.tolist(),
                "padding_mode": self.padding_mode,
                "is_fresh": self.is_fresh,
                "own": max(self.own_before, len(self.own[0])),
                "ruled_out": sorted({*self.ruled_out, *ruled_out}),
            },
        )


class OwnTextsDifferError(ModelError):
    """A way of computing agrees on the public texts, but not on the run's."""


def way_of(backend: str, precision: str) -> str:
    """The name of a way of computing in the cache."""
    return f"{backend} {precision}"


def trusted(bundle: Bundle) -> Bundle:
    """The bundle with empty canaries, so that our own code loads it; the caller compares its answers."""
    return dataclasses.replace(bundle, canaries=Canaries((), np.zeros((0, len(bundle.labels)), np.float32)))


def find_references(
    bundle: Bundle, tokenizer: Tokenizer, open_plain: Callable[[], Model], rows: RowsToScore, device: str
) -> tuple[References, Model | None]:
    """The references of a plain folder, from the cache or computed, and the model run by transformers if that was loaded.

    ``tokenizer`` is that of the :func:`trusted` folder; ``open_plain`` loads the model in float32 with the tokenizer of
    transformers.

    Raises:
        ModelError: transformers cannot run the model, or answers another way each time.
    """
    found = _recalled(bundle, tokenizer, device)
    plain = None
    if found is None:
        plain = open_plain()
        found = compute_references(plain)
    if rows.own_texts > 2 * found.own_before:  # so that a few rows more each night do not count
        plain = plain or open_plain()
        found = dataclasses.replace(found, own=_own_references(plain, rows))
    return found, plain


def compute_references(plain: Model) -> References:
    """Let plain transformers answer; raises as :func:`find_references`."""
    result = probe(plain)
    model = result.model
    texts = public_texts(model.tokenizer, are_pairs=plain.bundle.takes_pairs)
    answers = [*result.answers, *reference_answers(model, texts[len(result.answers) :])]
    return References(
        texts=texts,
        logits=np.stack([answer.logits for answer in answers]),
        digests=tuple(_digest(text, answer.input_ids) for text, answer in zip(texts, answers, strict=True)),
        padding_mode=result.padding_mode,
        is_fresh=result.is_fresh,
        own=_nothing(model.bundle),
    )


def public_texts(tokenizer: Tokenizer, *, are_pairs: bool = False) -> tuple[Text, ...]:
    """The probes, and sample reviews evenly from short to long, or pairs of a short and a long one: 32 in all."""
    probes = [*probe_texts(tokenizer, are_pairs=are_pairs), (_SCRIPTS, "film") if are_pairs else _SCRIPTS]
    reviews = {row["text"] for row in samples.rows() if (row["text"] or "").strip()} - {*probes}
    ordered = sorted((text for text in reviews if len(text) <= _LONGEST_SAMPLE), key=lambda t: (len(t), t))
    places = np.linspace(0, len(ordered) - 1, N_CANARIES - len(probes)).round().astype(int)
    some = [ordered[place] for place in places]
    return (*probes, *(zip(some, reversed(some), strict=True) if are_pairs else some))


def _recalled(bundle: Bundle, tokenizer: Tokenizer, device: str) -> References | None:
    """The references in the cache, if they are of the same texts and tokens."""
    value = recall(_KIND, _key(bundle, device))
    try:
        found = _from_json(bundle, tokenizer, value) if isinstance(value, Mapping) else None
    except (KeyError, TypeError, ValueError) as error:
        _LOG.info("%s: the references in the cache are damaged (%s)", bundle.path, printable(error))
        return None
    return found if found is not None and has_their_tokens(found, tokenizer) else None


def _from_json(bundle: Bundle, tokenizer: Tokenizer, value: Mapping[str, Any]) -> References | None:
    texts = public_texts(_cut(tokenizer), are_pairs=bundle.takes_pairs)
    logits = np.array(value["logits"], dtype=np.float32)
    if logits.shape != (len(texts), len(bundle.labels)) or not np.isfinite(logits).all():
        return None
    return References(
        texts=texts,
        logits=logits,
        digests=tuple(value["digests"]),
        padding_mode=str(value["padding_mode"]),
        is_fresh=bool(value["is_fresh"]),
        own=_nothing(bundle),
        own_before=int(value["own"]),
        ruled_out=tuple(value["ruled_out"]),
        is_from_cache=True,
    )


def has_their_tokens(references: References, *tokenizers: Tokenizer) -> bool:
    """Whether each tokenizer makes the tokens of the texts that transformers made, and all have the same settings."""

    def digests(tokenizer: Tokenizer) -> tuple[str, ...]:
        tokens = _cut(tokenizer).encode(references.texts, "head").input_ids
        return tuple(_digest(text, ids.tolist()) for text, ids in zip(references.texts, tokens, strict=True))

    first, *others = tokenizers
    return all(digests(each) == references.digests for each in tokenizers) and all(
        first.always_agrees_with(other) for other in others
    )


def _own_references(plain: Model, rows: RowsToScore) -> tuple[tuple[Text, ...], NDArray[np.float32]]:
    """The run's first distinct texts that transformers can score, with their logits, within the time for it."""
    model = dataclasses.replace(plain, tokenizer=_cut(plain.tokenizer))
    missing_pair = plain.inference.missing_pair
    usable = (text for text in rows.first_texts() if status_of(text, missing_pair) == Status.OK)
    wanted = list(dict.fromkeys(_whole(text) for text in usable))
    texts: list[Text] = []
    logits = []
    started = time.monotonic()
    for first in range(0, min(rows.own_texts, len(wanted)), _OWN_AT_A_TIME):
        some = wanted[first : min(first + _OWN_AT_A_TIME, rows.own_texts)]
        try:
            answers = reference_answers(model, some)
        except ModelError as error:  # such a row fails alone when it is scored
            _LOG.info("%s", printable(error))
            continue
        texts += some
        logits += [answer.logits for answer in answers]
        if time.monotonic() - started > _OWN_SECONDS:
            break
    return (tuple(texts), np.stack(logits)) if texts else _nothing(model.bundle)


def _whole(text: GivenText) -> Text:
    return (text[0] or "", text[1] or "") if isinstance(text, tuple) else text or ""


def _nothing(bundle: Bundle) -> tuple[tuple[Text, ...], NDArray[np.float32]]:
    return (), np.zeros((0, len(bundle.labels)), np.float32)


def _key(bundle: Bundle, device: str) -> str:
    versions = {name: installed_version(name) for name in _VERSIONS}
    kind = device.partition(":")[0]
    return fingerprint([_FORMAT, __version__, bundle.fingerprint, versions, kind, bundle.takes_pairs])


def _digest(text: Text, input_ids: Sequence[int]) -> str:
    return hashlib.sha256(json.dumps([text, list(input_ids)]).encode()).hexdigest()


def _cut(tokenizer: Tokenizer) -> Tokenizer:
    return tokenizer.cut_at(min(tokenizer.max_length, LONGEST_PROBE))


def _difference(model: Model, texts: Sequence[Text], expected: NDArray[np.float32]) -> Difference:
    """Compare logits ``[n, C]`` in micro-batches like those of rows."""
    model = dataclasses.replace(model, tokenizer=_cut(model.tokenizer)).with_inference(long_text="head")
    prepared = prepare(texts, model)
    with (
        model.backend.one_core_each() as begin,
        ThreadPoolExecutor(model.workers, "references", begin) as workers,
    ):
        computed = Computation(prepared, model, workers.map).result()
    if computed.failures:
        raise ModelError(
            f"{printable(model.bundle.path)} cannot score on {model.backend.device} in {model.backend.precision}: "
            f"{next(iter(computed.failures.values()))}. Try --device cpu --precision fp32."
        )
    return compare(computed.logits[prepared.unique], expected, model.bundle)


def _refuse(found: Difference, model: Model) -> None:
    """Raise :class:`~batchscore.errors.ModelError` if a difference is larger than the precision explains."""
    backend, path = model.backend, printable(model.bundle.path)
    if backend.precision != "fp32":
        if not found.probability <= CANARY_TOLERANCE:
            raise ModelError(
                f"{path}: in {backend.precision} a probability changes by {found.probability:.4f} (allowed: "
                f"{CANARY_TOLERANCE}). Use --precision fp32."
            )
    elif not found.is_rounding:
        raise ModelError(
            f"{path}: the answers of {backend.name} on {backend.device} are {found.probability:.1e} off those of plain "
            f"transformers, logits {found.logit:.1e}. Use --backend transformers."
        )
