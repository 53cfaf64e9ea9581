"""Find the padding mode in which micro-batches give the same output as plain transformers gives for each text alone.

Some models do not tolerate padding. Some heads read the last position, or the last token that is not
``config.pad_token_id``; FNet, Nyströmformer, YOSO and ConvBERT mix all positions of a row; BigBird switches to full attention
on a short input and stays there. What a model tolerates is not looked up but tested, before the first row, with a few probe
texts of odd lengths: in our own micro-batches, and by :class:`~batchscore.model.backends.plain.Reference`. The first mode
whose outputs all agree is used:

==========  ========================================  ============================================================
mode        what it does                              models that use it (``tests/test_probing.py`` goes through them)
==========  ========================================  ============================================================
``right``   pads rows on the right, to a              BERT, RoBERTa, DeBERTa, ModernBERT, Longformer, T5, BART and
            multiple of 16                            the like; decoders with a padding token (GPT-2, Llama,
                                                      Mistral, Qwen, Gemma, Falcon, Bloom, OPT, Phi); Funnel
``left``    the same on the left, if the tokenizer    XLNet
            pads there
``none``    texts of equal length together            FNet, Nyströmformer, YOSO, ConvBERT, BigBird; MobileBERT
                                                      whose padding token has an embedding; a decoder whose
                                                      padding token is not in its vocabulary
``single``  each text alone                           decoders without a padding token in ``config.json``
==========  ========================================  ============================================================

A model that agrees in no mode is refused: Reformer, whose output is random.

Outputs *agree* in float32 if probabilities differ by at most 1e-5 and logits by at most 1e-4, relative to 1 plus the largest;
the second because saturated probabilities would hide a difference. Measured on shapes from 2 layers of 32 to 24 of 1,024,
with logits of standard deviation 3, rounding is up to 1.4e-6 in a probability and 7e-6 in a logit. A wrong mode was off by
9e-4 (ConvBERT) to 1 in a probability.

Two kinds of model get a fresh copy for each micro-batch (the backend ``fresh``): those whose state a text changed, which
were BigBird and Funnel, and those whose rotary embeddings scale with the longest row, known by their ``rope_type``. Texts
longer than the longest probe, 1,040 tokens at most, go through alone.

Probing takes as long as about six texts of the model's longest input (or of 1,040 tokens): 1.8 s of one core with AVX2 for
MiniLM-L6, 4 s for a model of DistilBERT's size, 8 s for BERT-base's. Workers share it.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from batchscore.errors import ModelError, printable
from batchscore.model import batching
from batchscore.model.backends import open_backend
from batchscore.model.bundle import Bundle, Canaries
from batchscore.model.canaries import CANARY_TOLERANCE, check_canaries
from batchscore.model.scoring import LONGEST_PROBE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.model.backends.plain import Answer
    from batchscore.model.scoring import Model
    from batchscore.model.tokenization import Tokenizer
    from batchscore.records import Encodings, Text

T = TypeVar("T")
R = TypeVar("R")

_LOG = logging.getLogger(__name__)
TOLERANCE = 1e-5
"""The largest difference in a probability, in float32."""
_LOGIT_TOLERANCE = 1e-4
"""The largest difference in a logit, relative to 1 plus the largest."""
_SENTENCE = (
    "the film was a long one and I did not like it at all but he said that for him there is more in a good story "
    "than what you see when the light goes out"
)
_FILLERS = (" a", " I", ".", "!", "a") * 8
_ANOTHER = "he liked it"
"""The other text of a pair that is no longer than the longest input."""
_LONGEST = 5
"""The probe that is longer than the longest input."""
_PROBE_BATCHES = ((5, 0), (4, 2, 1, 0), (2, 3, 2), (1,), (0,), (6,))
"""Micro-batches of probes, as indices into :func:`probe_texts`."""
_BUDGET = 1 << 20
"""Padded tokens; more than any batch of probes has."""


class ProbeResult(NamedTuple):
    """What probing found."""

    padding_mode: str
    is_fresh: bool
    """Whether each micro-batch needs a fresh copy of the model."""
    model: Model
    """With the probes as its canaries, its longest input cut to :data:`~batchscore.model.scoring.LONGEST_PROBE`."""
    answers: Sequence[Answer]
    """Of plain transformers, for each probe."""


class Difference(NamedTuple):
    """The largest difference in a probability, and in a logit relative to 1 plus the largest."""

    probability: float
    logit: float

    @property
    def is_rounding(self) -> bool:
        """Whether another order of additions explains it, in float32."""
        return self.probability <= TOLERANCE and self.logit <= _LOGIT_TOLERANCE


def padded_safely(model: Model) -> Model:
    """The model with the first padding mode that agrees with plain transformers.

    ``model`` is run by transformers. Below float32, without canaries, the probes are held to the canaries' tolerance.

    Raises:
        ModelError: no mode agrees, the precision is too coarse, or transformers cannot score a text alone.
    """
    bundle, backend = model.bundle, model.backend
    if backend.precision == "fp32":
        result = probe(model)
        return dataclasses.replace(model, backend=result.model.backend).with_inference(
            padding_mode=result.padding_mode
        )
    exact = open_backend("transformers", bundle, backend.device, "fp32")
    result = probe(dataclasses.replace(model, backend=exact))
    if result.is_fresh:
        backend = open_backend("fresh", bundle, backend.device, backend.precision)
    if bundle.canaries is None:
        _refuse_coarse(dataclasses.replace(result.model, backend=backend))
    return dataclasses.replace(model, backend=backend).with_inference(padding_mode=result.padding_mode)


def _refuse_coarse(model: Model) -> None:
    check = check_canaries(model)
    if check is not None and check.largest_change > CANARY_TOLERANCE:
        raise ModelError(
            f"{printable(model.bundle.path)}: in {model.backend.precision} a probability changes by "
            f"{check.largest_change:.4f} (allowed: {CANARY_TOLERANCE}). Use --precision fp32."
        )


def probe(model: Model) -> ProbeResult:
    """Probe a model run by transformers in float32; raises as :func:`padded_safely`."""
    tokenizer = model.tokenizer.cut_at(min(model.tokenizer.max_length, LONGEST_PROBE))
    model = dataclasses.replace(model, tokenizer=tokenizer)
    texts = probe_texts(tokenizer, are_pairs=model.bundle.takes_pairs)
    encodings = tokenizer.encode(texts, "head")
    for reason in encodings.failures.values():
        raise ModelError(f"{printable(model.bundle.path)}: {reason}, of a short text.")
    answers = reference_answers(model, texts)
    _refuse_different_tokens(model, encodings.input_ids, answers)
    has_dynamic_rope = _has_dynamic_rope(model)
    is_fresh = has_dynamic_rope or any(answer.changed_model for answer in answers)
    if is_fresh:
        backend = open_backend("fresh", model.bundle, model.backend.device, "fp32")
        model = dataclasses.replace(model, backend=backend)
    expected = np.stack([answer.logits for answer in answers])
    differences = []
    for mode in _modes_to_try(tokenizer, has_dynamic_rope):
        model = model.with_inference(padding_mode=mode)
        difference = _batch_difference(model, encodings, expected)
        _LOG.info(
            "%s: padding %s: probes differ by %.1e, logits by %.1e", model.bundle.path, mode, *difference
        )
        if difference.is_rounding:
            probes = Canaries(tuple(texts), model.bundle.answers(expected))
            bundle = dataclasses.replace(model.bundle, canaries=probes, long_text="head")
            return ProbeResult(mode, is_fresh, dataclasses.replace(model, bundle=bundle), answers)
        differences.append(difference.probability)
    raise _no_mode_agrees(model, texts[_LONGEST], min(differences))


def _modes_to_try(tokenizer: Tokenizer, has_dynamic_rope: bool) -> list[str]:
    """Padding modes to try, in order; ``left`` only if the tokenizer pads there."""
    if has_dynamic_rope:
        return ["none", "single"]
    return [mode for mode in batching.PADDING_MODES if mode != "left" or tokenizer.padding_side == "left"]


def _no_mode_agrees(model: Model, text: Text, difference: float) -> ModelError:
    first, second = (answer.logits for answer in reference_answers(model, [text, text]))
    reason = (
        f"its probabilities are {difference:.1e} off those of plain transformers, even for a text by itself"
        if np.array_equal(first, second)
        else "transformers itself answers one text another way each time"
    )
    return ModelError(
        f"{printable(model.bundle.path)} cannot be scored as it was trained: {reason}. Use a model of another architecture."
    )


def probe_texts(tokenizer: Tokenizer, *, are_pairs: bool = False) -> list[Text]:
    """Texts, or pairs of texts, of lengths at which something may go wrong.

    In order: one word; the length multiple that rows are padded to, one token more (twice), three multiples less one; more
    than the longest input (of a pair, both texts); and the padding token.
    """
    multiple = batching.LENGTH_MULTIPLE
    sizes = (multiple, multiple + 1, multiple + 1, 3 * multiple - 1)
    ways = itertools.cycle((_before_another, _behind_another) if are_pairs else (_alone,))
    texts = [
        _text(tokenizer, size, start, way) for (start, size), way in zip(enumerate(sizes), ways, strict=False)
    ]
    words = " ".join(_words(tokenizer.max_length, len(sizes)))
    longest = (words, f"a {words} again") if are_pairs else words
    padding = tokenizer.pad_token or ""
    nothing, something = (len(ids) for ids in tokenizer.token_ids(["", padding]))
    way = next(ways)
    return [way("film"), *texts, longest, way(padding if something > nothing else "the")]


def _alone(text: str) -> Text:
    return text


def _before_another(text: str) -> Text:
    return text, _ANOTHER


def _behind_another(text: str) -> Text:
    return _ANOTHER, text


def _text(tokenizer: Tokenizer, n_tokens: int, start: int, way: Callable[[str], Text]) -> Text:
    """A text of ``n_tokens`` tokens, special ones included, or slightly fewer if words do not add up to that.

    ``way`` makes of it what the model is given: itself, or a pair.
    """
    words = _words(n_tokens, start)

    def size(text: str) -> int:
        return len(next(tokenizer.token_ids([way(text)])))

    count = bisect.bisect_right(range(n_tokens + 1), n_tokens, key=lambda k: size(" ".join(words[:k]))) - 1
    text = " ".join(words[: max(count, 1)])
    for filler in _FILLERS:
        if size(text) < size(text + filler) <= n_tokens:
            text += filler
    return way(text)


def _words(count: int, start: int) -> list[str]:
    return list(itertools.islice(itertools.cycle(_SENTENCE.split()), start, start + count))


def reference_answers(model: Model, texts: Sequence[Text]) -> list[Answer]:
    """Outputs of plain transformers for each text alone.

    ``model`` is run by transformers in float32. Raises :class:`~batchscore.errors.ModelError` if a text cannot be scored.
    """
    from batchscore.model.backends.plain import Reference

    reference = Reference(model.bundle, _plain(model))
    inputs = [reference.inputs(text, model.tokenizer.max_length) for text in texts]

    def answered(each: Any) -> Answer:
        try:
            answer = reference.answer(each)
        except Exception as error:  # a model may raise anything
            n_tokens = each["input_ids"].shape[1]
            raise ModelError(
                f"{printable(model.bundle.path)}: transformers cannot score a text of {n_tokens} tokens by itself "
                f"({type(error).__name__}: {printable(error)[:300]}). Use a model of another architecture."
            ) from error
        if answer.logits.shape != (len(model.bundle.labels),) or not np.isfinite(answer.logits).all():
            raise ModelError(
                f"{printable(model.bundle.path)}: transformers gives no finite logit for each of the "
                f"{len(model.bundle.labels)} labels. Train or fetch the model again."
            )
        return answer

    return _in_workers(model, answered, inputs)


def _refuse_different_tokens(
    model: Model, sequences: Sequence[NDArray[np.int32]], answers: Sequence[Answer]
) -> None:
    if any(ids.tolist() != answer.input_ids for ids, answer in zip(sequences, answers, strict=True)):
        raise ModelError(
            f"{printable(model.bundle.path)}: its tokenizer gives other tokens than transformers' own. Save it again with "
            "tokenizer.save_pretrained(folder)."
        )


def _batch_difference(model: Model, encodings: Encodings, expected: NDArray[np.float32]) -> Difference:
    """Compare the probes in batches with ``expected``, the logits ``[n, C]`` of each alone."""

    def of_batch(probes: Sequence[int]) -> list[Difference]:
        batch = [encodings.input_ids[k] for k in probes]
        types = encodings.token_type_ids and [encodings.token_type_ids[k] for k in probes]
        try:
            batches = [
                batching.assemble(batch, rows, model.padding, types)
                for rows in batching.plan_sequences(batch, _BUDGET, model.padding)
            ]
            found = [(np.take(probes, each.sequence), model.backend.logits(each)) for each in batches]
        except Exception as error:  # noqa: BLE001 - padding that a model does not tolerate may raise anything
            _LOG.info(
                "%s: padding %s: %s", model.bundle.path, model.inference.padding_mode, printable(error)[:200]
            )
            return [Difference(math.inf, math.inf)]
        return [compare(logits, expected[rows], model.bundle) for rows, logits in found]

    differences = np.array([each for some in _in_workers(model, of_batch, _PROBE_BATCHES) for each in some])
    return Difference(*differences.max(axis=0).tolist())


def compare(found: NDArray[np.float32], expected: NDArray[np.float32], bundle: Bundle) -> Difference:
    """How far logits ``[n, C]`` are from those expected."""
    one, other = (bundle.answers(logits) for logits in (found, expected))
    logit = np.abs(found - expected).max() / (1 + np.abs(expected).max())
    return Difference(float(bundle.head.changes(one, other).max()), float(logit))


def _in_workers(model: Model, task: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Map the task over the items in workers of one core each, as for rows."""
    with (
        model.backend.one_core_each() as begin,
        ThreadPoolExecutor(model.workers, "probes", begin) as workers,
    ):
        return list(workers.map(task, items))


def _plain(model: Model) -> Any:
    return model.backend.forward.model  # type: ignore[attr-defined]


def _has_dynamic_rope(model: Model) -> bool:
    from batchscore.model.backends.plain import has_dynamic_rope

    return has_dynamic_rope(_plain(model))
