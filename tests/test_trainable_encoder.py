"""The forward pass of trainings in bfloat16: transformers' logits and gradients, dropout where it has it, and only then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_architectures import COMPUTED, SMALL
from test_trainer import encoder, hashes, often, record, run, settings, stop_at
from torch.nn import functional
from transformers import AutoConfig, AutoModelForSequenceClassification

from batchscore.model.backends.architectures import BertLike
from batchscore.training import TrainSettings, trainable_encoder
from batchscore.training.mean_pooling import append_mean_layer
from batchscore.training.trainable_encoder import trainable_encoder_of

__all__ = ["encoder", "often", "settings"]  # fixtures
TRAINED = [
    name for name, each in COMPUTED.items() if isinstance(each, BertLike) and each.dropouts is not None
]
LABELS = torch.tensor([0, 1, 0])


def classifier(name: str, *, pooling: str = "first", **options: Any) -> Any:
    """A tiny classifier with random weights, without dropout on attention weights, in training."""
    torch.manual_seed(0)
    small = {COMPUTED[name].renamed.get(option, option): size for option, size in SMALL.items()}
    off = {"attention_probs_dropout_prob": 0.0, "attention_dropout": 0.0}
    config = AutoConfig.for_model(
        name, num_hidden_layers=2, vocab_size=99, pad_token_id=1, **{**small, **off, **options}
    )
    auto: Any = AutoModelForSequenceClassification
    model = auto.from_config(config)
    if pooling == "mean":
        append_mean_layer(model)
    return model.train()


def batch(*, padded: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids, mask = torch.randint(5, 99, (3, 32), generator=generator), torch.ones(3, 32, dtype=torch.int64)
    if padded:
        mask[1, 9:] = mask[2, 20:] = 0
    return {"input_ids": torch.where(mask > 0, ids, 1), "attention_mask": mask}


def gradients(model: Any, logits: torch.Tensor) -> dict[str, torch.Tensor | None]:
    model.zero_grad()
    functional.cross_entropy(logits.float(), LABELS).backward()  # type: ignore[no-untyped-call]
    return {name: each.grad for name, each in model.named_parameters()}


def is_key_bias(name: str) -> bool:
    """Softmax cancels it: its gradient is 0 but for rounding."""
    return any(name.endswith(f"{each.layers.modules['key']}.bias") for each in map(COMPUTED.get, TRAINED))  # type: ignore[union-attr]


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("pooling", ["first", "mean"])
@pytest.mark.parametrize("name", TRAINED)
def test_logits_and_gradients_are_those_of_transformers(name: str, pooling: str, padded: bool) -> None:
    model = classifier(name, pooling=pooling).eval()
    forward = trainable_encoder_of(model, torch.float32)
    assert forward is not None
    inputs = batch(padded=padded)
    wanted = model(**inputs).logits
    expected = gradients(model, wanted)
    found = forward(**inputs, seed=None)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    for parameter, gradient in gradients(model, found).items():
        other = expected[parameter]
        assert other is not None
        if is_key_bias(parameter):
            assert other.norm() < 1e-9
            assert gradient is None or gradient.norm() < 1e-9
        else:
            assert gradient is not None, parameter
            assert (gradient - other).norm() <= 1e-5 * other.norm(), parameter


def test_token_types_of_pairs_are_read() -> None:
    model = classifier("bert").eval()
    forward = trainable_encoder_of(model, torch.float32)
    assert forward is not None
    inputs = {**batch(padded=True), "token_type_ids": (torch.arange(32) > 5).long().expand(3, 32)}
    wanted = model(**inputs).logits
    expected = gradients(model, wanted)["bert.embeddings.token_type_embeddings.weight"]
    found = forward(**inputs, seed=None)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        gradients(model, found)["bert.embeddings.token_type_embeddings.weight"],
        expected,
        rtol=1e-4,
        atol=1e-7,
    )


def scaled_by_place(states: torch.Tensor, rate: float) -> torch.Tensor:
    """What stands for dropout: the same wherever its rate and its width are, and different for each rate."""
    return states * (1 + rate * torch.linspace(-1, 1, states.shape[-1], dtype=states.dtype))


RATES: dict[str, dict[str, Any]] = {
    "bert": {"hidden_dropout_prob": 0.3, "classifier_dropout": 0.6},
    "distilbert": {"dropout": 0.3, "seq_classif_dropout": 0.6},
}


@pytest.mark.parametrize("name", TRAINED)
def test_dropout_is_where_transformers_has_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier(name, **RATES.get(name, RATES["bert"]))
    forward = trainable_encoder_of(model, torch.float32)
    assert forward is not None
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, states: scaled_by_place(states, self.p))
    monkeypatch.setattr(
        trainable_encoder._Dropout, "__call__", lambda _, states, rate: scaled_by_place(states, rate)
    )
    inputs = batch(padded=True)
    wanted = model(**inputs).logits
    assert not torch.allclose(wanted, model.eval()(**inputs).logits - 1)
    torch.testing.assert_close(forward(**inputs, seed=1), wanted, rtol=1e-5, atol=1e-6)


def test_a_share_of_the_states_is_dropped_and_the_rest_scaled_to_the_same_mean() -> None:
    states = torch.ones(300, 1000)
    found = trainable_encoder._Dropout(7)(states, 0.1)
    kept = found[found > 0]
    assert (found == 0).float().mean().item() == pytest.approx(26 / 256, abs=0.003)
    assert kept.min() == kept.max() == pytest.approx(256 / 230)
    torch.testing.assert_close(trainable_encoder._Dropout(7)(states, 0.1), found)
    assert not torch.equal(trainable_encoder._Dropout(8)(states, 0.1), found)
    assert torch.equal(trainable_encoder._Dropout(None)(states, 0.1), states)


def test_what_is_dropped_is_a_function_of_the_seed_and_differs_from_place_to_place() -> None:
    dropout = trainable_encoder._Dropout(7)
    states = torch.ones(8, 100)
    assert not torch.equal(dropout(states, 0.5), dropout(states, 0.5))
    model = classifier("bert")
    forward = trainable_encoder_of(model, torch.bfloat16)
    assert forward is not None
    one, same, other = (forward(**batch(padded=True), seed=seed) for seed in (5, 5, 6))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name", TRAINED)
def test_bfloat16_is_close_to_float32(name: str) -> None:
    model = classifier(name, pooling="mean").eval()
    forward = trainable_encoder_of(model, torch.bfloat16)
    assert forward is not None
    inputs = batch(padded=True)
    wanted = model(**inputs).logits
    expected = gradients(model, wanted)
    found = forward(**inputs, seed=None)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.02)
    for parameter, gradient in gradients(model, found).items():
        other = expected[parameter]
        if gradient is not None and other is not None and not is_key_bias(parameter):
            assert (gradient - other).norm() <= 0.1 * other.norm(), parameter


def with_dropout_on_attention(model: Any) -> None:
    model.base_model.encoder.layer[1].attention.self.dropout.p = 0.1


def with_layers_of_different_dropout(model: Any) -> None:
    model.base_model.encoder.layer[1].output.dropout.p = 0.5


def with_dropout_of_everything(model: Any) -> None:
    model.dropout.p = 1.0


def with_another_activation(model: Any) -> None:
    model.config.hidden_act = "gelu_fast"


def with_one_weight_more(model: Any) -> None:
    model.classifier.extra = torch.nn.Parameter(torch.zeros(3))


@pytest.mark.parametrize(
    "change",
    [
        with_dropout_on_attention,
        with_layers_of_different_dropout,
        with_dropout_of_everything,
        with_another_activation,
        with_one_weight_more,
    ],
    ids=lambda change: change.__name__,
)
def test_whatever_is_not_certain_is_left_to_transformers(change: Callable[[Any], None]) -> None:
    model = classifier("bert")
    assert trainable_encoder_of(model, torch.bfloat16) is not None
    change(model)
    assert trainable_encoder_of(model, torch.bfloat16) is None


@pytest.mark.parametrize("name", sorted(set(COMPUTED) - set(TRAINED)))
def test_other_architectures_are_left_to_transformers(name: str) -> None:
    assert trainable_encoder_of(classifier(name), torch.bfloat16) is None


def test_frozen_layers_get_no_gradient() -> None:
    model = classifier("bert")
    for parameter in [*model.bert.embeddings.parameters(), *model.bert.encoder.layer[0].parameters()]:
        parameter.requires_grad = False
    forward = trainable_encoder_of(model, torch.bfloat16)
    assert forward is not None
    found = gradients(model, forward(**batch(padded=True), seed=1))
    without = {name for name, gradient in found.items() if gradient is None}
    frozen = {name for name, each in model.named_parameters() if not each.requires_grad}
    assert without == frozen | {"bert.encoder.layer.1.attention.self.key.bias"}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The seeds of the forward passes that are made here."""
    seeds: list[int | None] = []
    forward = trainable_encoder.TrainableEncoder.__call__

    def counted(self: Any, *inputs: Any, seed: int | None, **named: Any) -> Any:
        seeds.append(seed)
        return forward(self, *inputs, seed=seed, **named)

    monkeypatch.setattr(trainable_encoder.TrainableEncoder, "__call__", counted)
    return seeds


def test_a_training_in_bfloat16_learns_by_it(settings: TrainSettings, calls: list[int | None]) -> None:
    result = run(settings, recipe="full", precision="bf16", epochs=20, learning_rate=1e-2)
    assert result.metrics["accuracy"]["value"] == 1.0
    drawn = [seed for seed in calls if seed is not None]
    assert len(drawn) == len(set(drawn)) >= 20
    assert None in calls  # evaluations


@pytest.mark.parametrize(
    "changes", [{"precision": "fp32"}, {"precision": "bf16", "gradient_checkpointing": True}], ids=str
)
def test_other_trainings_are_as_they_were(
    settings: TrainSettings, calls: list[int | None], changes: dict[str, Any]
) -> None:
    assert run(settings, recipe="full", **changes).output.exists()
    assert not calls


@pytest.mark.parametrize("changes", [{}, {"train_layers": 1, "gradient_accumulation": 2}], ids=str)
def test_a_training_in_bfloat16_is_resumed_to_the_same_bundle(
    settings: TrainSettings,
    tmp_path: Path,
    often: None,
    calls: list[int | None],
    changes: dict[str, Any],
) -> None:
    full = {"recipe": "full", "precision": "bf16", "epochs": 3, **changes}
    whole = run(settings, **full)
    steps = len(calls)
    with pytest.raises(KeyboardInterrupt):
        run(settings, stop_at("epoch 2"), output=tmp_path / "resumed", **full)
    said: list[str] = []
    resumed = run(settings, said.append, output=tmp_path / "resumed", resume=True, **full)
    assert not any(line.startswith("epoch 1 ") for line in said)
    assert len(calls) - steps >= steps > 0
    assert hashes(resumed.output) == hashes(whole.output)
    assert record(resumed.output) == record(whole.output)
