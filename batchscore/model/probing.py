"""Whether our micro-batches are answered as plain transformers answers each text alone, and in which way of padding.

Padding is not harmless for every model. Some heads read the last position, or the last token that is not
``config.pad_token_id``; FNet, Nyströmformer, YOSO and ConvBERT mix what stands in a row; BigBird computes short inputs in
another way, and all later ones with them. What a model bears is not looked up but tried, before the first row, with a few
texts of odd lengths: through our own tokenizer and micro-batches, and through :class:`~batchscore.model.backends.plain.Alone`. The
first way that answers all of them alike is taken:

==========  ========================================  ============================================================
way         what it does                              who takes it (``tests/test_probing.py`` goes through them)
==========  ========================================  ============================================================
``right``   fills up rows on the right, to a          BERT, RoBERTa, DeBERTa, ModernBERT, Longformer, T5, BART and
            multiple of 16                            their kin; decoders that know a padding token (GPT-2, Llama,
                                                      Mistral, Qwen, Gemma, Falcon, Bloom, OPT, Phi); Funnel
``left``    the same on the left, if that is where    XLNet
            the tokenizer pads
``none``    texts of one length together              FNet, Nyströmformer, YOSO, ConvBERT, BigBird; MobileBERT
                                                      whose padding token has an embedding; a decoder whose
                                                      padding token is none of its vocabulary
``single``  each text by itself                       decoders without a padding token in ``config.json``
==========  ========================================  ============================================================

A model that answers none of them alike is refused: Reformer, which answers another way each time.

*Alike* is a probability that is at most 1e-5 off in float32, and logits that are at most 1e-4 off, relative to 1 plus the
largest; the second because a model that is certain of its probes would hide much in the first. Measured on shapes from 2
layers of 32 to 24 of 1,024, with logits of standard deviation 3, rounding is up to 1.4e-6 of a probability and 7e-6 of a
logit. A wrong way was off by 9e-4 (ConvBERT) to 1 of a probability.

Two kinds of model are not shared by micro-batches either, but made new for each (the backend ``fresh``): those that have
changed after a text, which were BigBird and Funnel, and those whose rotary positions stretch with the longest row, told
by what they are called. Texts of more than 1,040 tokens, which is what probes have at the most, go through by themselves.

It takes about as long as six texts of the model's longest input (or of 1,040 tokens): 1.8 s of one core with AVX2 for
MiniLM-L6, 4 s for the size of DistilBERT, 8 s for that of BERT-base. Workers share it.
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
from batchscore.evaluation import apply_temperature
from batchscore.model import batching
from batchscore.model.backends import open_backend
from batchscore.model.bundle import Canaries
from batchscore.model.scoring import CANARY_TOLERANCE, LONGEST_PROBE, check_canaries

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.model.backends.plain import Answer
    from batchscore.model.scoring import Model
    from batchscore.model.tokenization import Tokenizer

T = TypeVar("T")
R = TypeVar("R")

_LOG = logging.getLogger(__name__)
TOLERANCE = 1e-5
"""Of a probability, in float32."""
_LOGIT_TOLERANCE = 1e-4
"""Of a logit, relative to 1 plus the largest."""
_SENTENCE = (
    "the film was a long one and I did not like it at all but he said that for him there is more in a good story "
    "than what you see when the light goes out"
)
_FILLERS = (" a", " I", ".", "!", "a") * 8
_COMPANIES = ((5, 0), (4, 2, 1, 0), (2, 3, 2), (1,), (0,), (6,))
"""Which of :func:`probe_texts` go through the model together."""
_BUDGET = 1 << 20


class Proof(NamedTuple):
    """What probing has shown."""

    way: str
    """Of padding."""
    is_fresh: bool
    """Whether each micro-batch needs a new model."""
    model: Model
    """With the probes as its canaries, cut at :data:`~batchscore.model.scoring.LONGEST_PROBE`."""


class _Difference(NamedTuple):
    """How far answers are apart at the most: of a probability, and of a logit relative to 1 plus the largest."""

    probability: float
    logit: float

    @property
    def is_rounding(self) -> bool:
        return self.probability <= TOLERANCE and self.logit <= _LOGIT_TOLERANCE


def padded_safely(model: Model) -> Model:
    """The model with the first way of padding in which it answers as plain transformers does.

    ``model`` computes by transformers. In a precision below float32 the probes of a folder without canaries may change as
    much as canaries may.

    Raises:
        ModelError: no way does, the precision is too coarse, or transformers cannot answer a text alone.
    """
    bundle, backend = model.bundle, model.backend
    if backend.precision == "fp32":
        proof = prove(model)
        return dataclasses.replace(model, backend=proof.model.backend).with_inference(way=proof.way)
    exact = open_backend("transformers", bundle, backend.device, "fp32")
    proof = prove(dataclasses.replace(model, backend=exact))
    if proof.is_fresh:
        backend = open_backend("fresh", bundle, backend.device, backend.precision)
    if bundle.canaries is None:
        _refuse_coarse(dataclasses.replace(proof.model, backend=backend))
    return dataclasses.replace(model, backend=backend).with_inference(way=proof.way)


def _refuse_coarse(model: Model) -> None:
    check = check_canaries(model)
    if check is not None and check.largest_change > CANARY_TOLERANCE:
        raise ModelError(
            f"{printable(model.bundle.path)}: in {model.backend.precision} a probability changes by "
            f"{check.largest_change:.4f} (allowed: {CANARY_TOLERANCE}). Use --precision fp32."
        )


def prove(model: Model) -> Proof:
    """Probe a model that computes by transformers in float32; raises as :func:`padded_safely`."""
    tokenizer = model.tokenizer.cut_at(min(model.tokenizer.max_length, LONGEST_PROBE))
    model = dataclasses.replace(model, tokenizer=tokenizer)
    texts = probe_texts(tokenizer)
    sequences = tokenizer.encode(texts, "head").input_ids
    answers = _answers_alone(model, texts)
    _refuse_other_tokens(model, sequences, answers)
    is_stretched = _is_stretched(model)
    is_fresh = is_stretched or any(answer.changed_model for answer in answers)
    if is_fresh:
        backend = open_backend("fresh", model.bundle, model.backend.device, "fp32")
        model = dataclasses.replace(model, backend=backend)
    expected = np.stack([answer.logits for answer in answers])
    differences = []
    for way in _ways(tokenizer, is_stretched):
        model = model.with_inference(way=way)
        difference = _difference(model, sequences, expected)
        _LOG.info(
            "%s: padding %s: probes differ by %.1e, logits by %.1e", model.bundle.path, way, *difference
        )
        if difference.is_rounding:
            probes = Canaries(tuple(texts), apply_temperature(expected, model.bundle.temperature))
            bundle = dataclasses.replace(model.bundle, canaries=probes, long_text="head")
            return Proof(way, is_fresh, dataclasses.replace(model, bundle=bundle))
        differences.append(difference.probability)
    raise _no_way(model, max(texts, key=len), min(differences))


def _ways(tokenizer: Tokenizer, is_stretched: bool) -> list[str]:
    """What to try, in turn; to the left only if that is where the tokenizer pads."""
    if is_stretched:
        return ["none", "single"]
    return [way for way in batching.WAYS if way != "left" or tokenizer.padding_side == "left"]


def _no_way(model: Model, text: str, difference: float) -> ModelError:
    first, second = (answer.logits for answer in _answers_alone(model, [text, text]))
    reason = (
        f"its probabilities are {difference:.1e} off those of plain transformers, even for a text by itself"
        if np.array_equal(first, second)
        else "transformers itself answers one text another way each time"
    )
    return ModelError(
        f"{printable(model.bundle.path)} cannot be scored as it was trained: {reason}. Use a model of another architecture."
    )


def probe_texts(tokenizer: Tokenizer) -> list[str]:
    """Texts of lengths at which something may go wrong.

    In turn: a word; as many tokens as rows are padded to, one more (twice), thrice as many less one; more than the model
    takes; and the token that rows are filled up with.
    """
    multiple = batching.LENGTH_MULTIPLE
    sizes = (multiple, multiple + 1, multiple + 1, 3 * multiple - 1)
    texts = [_text(tokenizer, size, start) for start, size in enumerate(sizes)]
    longest = " ".join(_words(tokenizer.max_length, len(sizes)))
    padding = tokenizer.pad_token or ""
    nothing, something = (len(ids) for ids in tokenizer.token_ids(["", padding]))
    return ["film", *texts, longest, padding if something > nothing else "the"]


def _text(tokenizer: Tokenizer, n_tokens: int, start: int) -> str:
    """A text of so many tokens, special ones included, or a little less where its words do not come out even."""
    words = _words(n_tokens, start)

    def size(text: str) -> int:
        return len(next(tokenizer.token_ids([text])))

    count = bisect.bisect_right(range(n_tokens + 1), n_tokens, key=lambda k: size(" ".join(words[:k]))) - 1
    text = " ".join(words[: max(count, 1)])
    for filler in _FILLERS:
        if size(text) < size(text + filler) <= n_tokens:
            text += filler
    return text


def _words(count: int, start: int) -> list[str]:
    return list(itertools.islice(itertools.cycle(_SENTENCE.split()), start, start + count))


def _answers_alone(model: Model, texts: Sequence[str]) -> list[Answer]:
    """What plain transformers answers to each text."""
    from batchscore.model.backends.plain import Alone

    alone = Alone(model.bundle, _plain(model))
    inputs = [alone.inputs(text, model.tokenizer.max_length) for text in texts]

    def answered(each: Any) -> Answer:
        try:
            answer = alone.answer(each)
        except Exception as error:  # what a model may raise has no common base
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

    return _by_workers(model, answered, inputs)


def _refuse_other_tokens(
    model: Model, sequences: Sequence[NDArray[np.int32]], answers: Sequence[Answer]
) -> None:
    if any(ids.tolist() != answer.input_ids for ids, answer in zip(sequences, answers, strict=True)):
        raise ModelError(
            f"{printable(model.bundle.path)}: its tokenizer gives other tokens than transformers' own. Save it again with "
            "tokenizer.save_pretrained(folder)."
        )


def _difference(
    model: Model, sequences: Sequence[NDArray[np.int32]], expected: NDArray[np.float32]
) -> _Difference:
    """How far the answers to the probes, in company, are from ``expected``, the logits ``[n, C]`` of each by itself."""

    def of_company(company: Sequence[int]) -> list[_Difference]:
        own = [sequences[k] for k in company]
        try:
            batches = [
                batching.assemble(own, rows, model.padding)
                for rows in batching.plan_sequences(own, _BUDGET, model.padding)
            ]
            found = [(np.take(company, each.sequence), model.backend.logits(each)) for each in batches]
        except Exception as error:  # noqa: BLE001 - a way that a model does not bear may raise anything
            _LOG.info("%s: padding %s: %s", model.bundle.path, model.inference.way, printable(error)[:200])
            return [_Difference(math.inf, math.inf)]
        return [_apart(logits, expected[rows], model.bundle.temperature) for rows, logits in found]

    apart = np.array([each for some in _by_workers(model, of_company, _COMPANIES) for each in some])
    return _Difference(*apart.max(axis=0).tolist())


def _apart(found: NDArray[np.float32], expected: NDArray[np.float32], temperature: float) -> _Difference:
    one, other = (apply_temperature(logits, temperature) for logits in (found, expected))
    logit = np.abs(found - expected).max() / (1 + np.abs(expected).max())
    return _Difference(float(np.abs(one - other).max()), float(logit))


def _by_workers(model: Model, task: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """What the task makes of each item, by workers of one core each, as rows are computed."""
    with (
        model.backend.one_core_each() as begin,
        ThreadPoolExecutor(model.workers, "probes", begin) as workers,
    ):
        return list(workers.map(task, items))


def _plain(model: Model) -> Any:
    return model.backend.forward.model  # type: ignore[attr-defined]


def _is_stretched(model: Model) -> bool:
    from batchscore.model.backends.plain import is_stretched

    return is_stretched(_plain(model))
