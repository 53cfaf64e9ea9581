"""One part through a fake device: order, failures, memory, windows."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from batchscore.errors import InterruptedRunError, ModelError
from batchscore.model import scoring
from batchscore.model.backends import OutOfDeviceMemoryError
from batchscore.model.bundle import Bundle, Canaries, open_bundle
from batchscore.model.canaries import check_canaries
from batchscore.model.scoring import InferenceSettings, Model, score_part
from batchscore.model.tokenization import Tokenizer
from batchscore.records import MicroBatch, Position, Predictions, Rows, Status


class FakeBackend:
    """Logits are ``(mean token id, 0)``, so that each row's answer can be told; it may run out of memory or fail."""

    name, device, precision = "fake", "cpu", "fp32"
    rows_are_alone = False

    def __init__(
        self, memory: float = float("inf"), poison: int | None = None, error: BaseException | None = None
    ) -> None:
        self.memory, self.poison, self.error = memory, poison, error
        self.shapes: list[tuple[int, ...]] = []
        self.released = 0

    def logits(self, batch: MicroBatch) -> NDArray[np.float32]:
        if batch.input_ids.size > self.memory:
            raise OutOfDeviceMemoryError("too much")
        if self.poison is not None and (batch.input_ids == self.poison).any():
            raise self.error or RuntimeError("poisoned")
        self.shapes.append(batch.input_ids.shape)
        means = (batch.input_ids * batch.attention_mask).sum(1) / batch.attention_mask.sum(1)
        return np.stack([means / 1000, np.zeros(len(means))], axis=1).astype(np.float32)

    def one_core_each(self) -> contextlib.AbstractContextManager[Callable[[], None]]:
        return contextlib.nullcontext(lambda: None)

    def release(self) -> None:
        self.released += 1


@pytest.fixture(scope="module")
def bundle(tiny_model: Path) -> Bundle:
    return open_bundle(str(tiny_model))


def model_of(bundle: Bundle, backend: Any, *, budget: int = 512, long_text: str = "head") -> Model:
    return Model(bundle, Tokenizer(bundle), backend, InferenceSettings(budget, long_text))


def rows_of(texts: list[str | None]) -> Rows:
    return Rows(Position(), list(range(len(texts))), texts, None, [], raw=[b""] * len(texts))


WORDS = ["film", "terrible", "wonderful", "a", "the", "plot", "acting", "boring", "music", "never"]


def texts_of(n: int) -> list[str | None]:
    return [" ".join(WORDS[(k * 7 + j) % 10] for j in range(1 + k * 13 % 90)) for k in range(n)]


def results(predictions: Predictions) -> NDArray[np.float32]:
    return predictions.probabilities


def test_results_come_back_in_input_order_whatever_the_batches(bundle: Bundle) -> None:
    texts = texts_of(60)
    one_by_one = [results(score_part(rows_of([t]), model_of(bundle, FakeBackend())))[0] for t in texts]
    together = results(score_part(rows_of(texts), model_of(bundle, FakeBackend(), budget=700)))
    np.testing.assert_array_equal(together, np.stack(one_by_one))


def test_null_empty_and_blank_texts_are_kept_without_a_prediction(bundle: Bundle) -> None:
    predictions = score_part(rows_of(["good", None, "", " \t\n", "bad"]), model_of(bundle, FakeBackend()))
    assert predictions.status.tolist() == [
        Status.OK,
        Status.NULL_TEXT,
        Status.EMPTY_TEXT,
        Status.EMPTY_TEXT,
        Status.OK,
    ]
    assert predictions.predicted.tolist()[1:4] == [-1, -1, -1]
    assert np.isnan(predictions.probabilities[1:4]).all()
    assert predictions.n_tokens.tolist() == [3, -1, -1, -1, 3]


def test_a_part_without_any_text_needs_no_device(bundle: Bundle) -> None:
    backend = FakeBackend()
    predictions = score_part(rows_of([None, ""]), model_of(bundle, backend))
    assert backend.shapes == []
    assert predictions.probabilities.shape == (2, 2)


def test_an_empty_part_has_empty_predictions(bundle: Bundle) -> None:
    assert score_part(rows_of([]), model_of(bundle, FakeBackend())).probabilities.shape == (0, 2)


def test_identical_texts_are_scored_once_and_counted(bundle: Bundle) -> None:
    backend = FakeBackend()
    predictions = score_part(
        rows_of(["same words", "other", "same words", "same words"]), model_of(bundle, backend)
    )
    assert sum(rows for rows, _ in backend.shapes) == 2
    assert predictions.work["duplicates"] == 2
    np.testing.assert_array_equal(predictions.probabilities[0], predictions.probabilities[3])


@pytest.mark.parametrize("memory", [1e9, 320, 160, 96])
def test_out_of_memory_halves_the_batch_and_loses_no_row(bundle: Bundle, memory: float) -> None:
    texts = texts_of(40)
    plenty = results(score_part(rows_of(texts), model_of(bundle, FakeBackend(), budget=4096)))
    backend = FakeBackend(memory)
    scarce = score_part(rows_of(texts), model_of(bundle, backend, budget=4096))
    assert (scarce.status == Status.OK).all()
    np.testing.assert_array_equal(scarce.probabilities, plenty)
    assert (backend.released > 0) == (memory < 4096)


def test_a_row_that_never_fits_fails_alone_with_its_reason(bundle: Bundle) -> None:
    texts: list[str | None] = ["film " * 200, "short", "film"]
    predictions = score_part(rows_of(texts), model_of(bundle, FakeBackend(memory=100), budget=4096))
    assert predictions.status.tolist() == [Status.FAILED, Status.OK, Status.OK]
    assert predictions.failures == ((0, "out of memory: too much"),)
    assert np.isnan(predictions.probabilities[0]).all()


def test_a_poisonous_row_fails_without_its_neighbours(bundle: Bundle) -> None:
    poison = int(next(Tokenizer(bundle).token_ids(["boring"]))[1])
    texts = texts_of(30)
    ill = [text is not None and "boring" in text.split() for text in texts]
    predictions = score_part(rows_of(texts), model_of(bundle, FakeBackend(poison=poison), budget=4096))
    assert (predictions.status == Status.FAILED).tolist() == ill
    assert {index for index, _ in predictions.failures} == {k for k, is_ill in enumerate(ill) if is_ill}
    assert predictions.failures[0][1] == "RuntimeError: poisoned"


def test_a_signal_is_no_failure_of_a_row(bundle: Bundle) -> None:
    stop = InterruptedRunError("stopped", 15)
    poison = int(next(Tokenizer(bundle).token_ids(["film"]))[1])
    with pytest.raises(InterruptedRunError):
        score_part(rows_of(["film", "plot"]), model_of(bundle, FakeBackend(poison=poison, error=stop)))


def test_an_output_that_is_not_finite_is_a_failure(bundle: Bundle) -> None:
    class Broken(FakeBackend):
        def logits(self, batch: MicroBatch) -> NDArray[np.float32]:
            return np.full((len(batch.sequence), 2), np.nan, dtype=np.float32)

    predictions = score_part(rows_of(["film", "plot"]), model_of(bundle, Broken()))
    assert (predictions.status == Status.FAILED).all()


def test_windows_weigh_a_text_by_its_tokens(bundle: Bundle) -> None:
    long = "film " * 700 + "terrible " * 500
    model = model_of(bundle, FakeBackend(), budget=2048, long_text="windows")
    predictions = score_part(rows_of(["film", long, None]), model)
    encodings = model.tokenizer.encode([long], "windows")
    means = np.array([ids.mean() / 1000 for ids in encodings.input_ids])
    expected = np.average(1 / (1 + np.exp(-means)), weights=encodings.weight)
    assert len(set(means)) == len(means) == 3
    assert predictions.probabilities[1, 0] == pytest.approx(expected, abs=1e-6)
    assert predictions.truncated.tolist() == [False, True, False]
    assert predictions.n_tokens[1] == 1202


def test_probabilities_sum_to_one_and_name_the_largest(bundle: Bundle) -> None:
    predictions = score_part(rows_of(texts_of(20)), model_of(bundle, FakeBackend()))
    np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1, atol=2**-23)
    np.testing.assert_array_equal(predictions.predicted, predictions.probabilities.argmax(axis=1))


def canaried(bundle: Bundle, swap: bool = False, shift: float = 0.0) -> Bundle:
    """The bundle with canaries that the fake device agrees with, unless they are tampered with."""
    texts = ("film", "plot and music", "never boring")
    found = results(score_part(rows_of(list(texts)), model_of(bundle, FakeBackend())))
    found = found[:, ::-1] if swap else found
    moved = found + np.array([shift, -shift], dtype=np.float32)
    return dataclasses.replace(bundle, canaries=Canaries(texts, moved.astype(np.float32)))


def test_canaries_agree_with_the_model_that_made_them(bundle: Bundle) -> None:
    check = check_canaries(model_of(canaried(bundle), FakeBackend()))
    assert check is not None
    assert check.agrees


@pytest.mark.parametrize(
    "facts",
    [pytest.param({"swap": True}, id="swapped labels"), pytest.param({"shift": 0.02}, id="shifted answers")],
)
def test_canaries_catch(bundle: Bundle, facts: dict[str, Any]) -> None:
    check = check_canaries(model_of(canaried(bundle, **facts), FakeBackend()))
    assert check is not None
    assert not check.agrees


def test_a_model_that_cannot_score_anything_is_refused(bundle: Bundle) -> None:
    with pytest.raises(ModelError, match="cannot score"):
        check_canaries(model_of(bundle, FakeBackend(memory=0)))


@pytest.mark.parametrize(
    ("tokens", "tasks"),
    [
        ([], []),
        ([5, 5, 5, 20, 3], [[0, 1], [2], [3], [4]]),
        ([10, 10], [[0], [1]]),
        ([4, 7, 3], [[0], [1, 2]]),
    ],
)
def test_small_micro_batches_share_a_task_that_is_no_more_than_a_full_one(
    tokens: list[int], tasks: list[list[int]]
) -> None:
    assert scoring._tasks(tokens, budget=10) == tasks
