"""Attention of a training: the same answers and gradients as torch's own, and only where it is known to be the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_encoders import bert, distilbert, ragged
from torch.nn import functional
from transformers import GPT2Config, GPT2ForSequenceClassification

from batchscore.training import attention
from batchscore.training.attention import NAME, matmul_attention


def drawn(*shape: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(*shape, generator=generator).bfloat16() for _ in range(4)]


@pytest.mark.parametrize("padded", [True, False])
def test_outputs_and_gradients_are_those_of_torch(padded: bool) -> None:
    *inputs, upstream = drawn(3, 4, 48, 16)
    mask = torch.arange(48)[None] < torch.tensor([48, 30, 7])[:, None] if padded else None
    ours = [each.clone().requires_grad_() for each in inputs]
    heads = torch.stack(ours).permute(1, 3, 0, 2, 4)
    found: Any = attention._MatmulAttention.apply(heads, mask).transpose(1, 2)  # type: ignore[no-untyped-call]
    exact = [each.float().requires_grad_() for each in inputs]
    allowed = None if mask is None else mask[:, None, None, :]
    wanted = functional.scaled_dot_product_attention(exact[0], exact[1], exact[2], attn_mask=allowed)
    assert (found.float() - wanted).abs().mean() < 0.01 * wanted.abs().mean()
    gradients = torch.autograd.grad(found, ours, upstream)
    for one, other in zip(gradients, torch.autograd.grad(wanted, exact, upstream.float()), strict=True):
        assert (one.float() - other).abs().mean() < 0.02 * other.abs().mean()
        assert one.shape == other.shape


def steps(model: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[torch.Tensor, list[torch.Tensor], int]:
    """Loss, gradients, and how often our own attention was used, of one batch in bfloat16."""
    used = []
    apply = attention._MatmulAttention.apply

    def counted(*arguments: Any) -> Any:
        used.append(1)
        return apply(*arguments)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(attention._MatmulAttention, "apply", counted)
    ids, mask = ragged(padded=True)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(input_ids=ids, attention_mask=mask, labels=torch.tensor([0, 1, 2, 0, 1])).loss
    loss.backward()
    monkeypatch.undo()
    gradients = [each.grad.clone() for each in model.parameters() if each.grad is not None]
    return loss.detach(), gradients, len(used)


@pytest.mark.parametrize("has_large_head", [False, True])
@pytest.mark.parametrize("make", [bert, distilbert])
def test_a_step_is_the_one_that_transformers_would_take(
    make: Any, has_large_head: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    model = make().eval()
    for parameter in model.base_model.parameters():
        parameter.data *= 0.3  # small scores
    if has_large_head:  # the second of four, of six elements each
        for name, parameter in model.base_model.named_parameters():
            if name.endswith(("query.weight", "q_lin.weight")):
                parameter.data[6:12] *= 2000.0
    wanted, expected, unused = steps(model, monkeypatch)
    with matmul_attention(model):
        assert model.config._attn_implementation == NAME
        found, gradients, used = steps(model, monkeypatch)
    assert model.config._attn_implementation == "sdpa"
    assert (unused, used) == (0, 3)
    assert abs(found - wanted) < 0.01
    total = sum(float((one - other).norm()) for one, other in zip(gradients, expected, strict=True))
    share = (
        0.1 if has_large_head else 0.05
    )  # steep softmax makes much of bfloat16's rounding, in torch as well
    assert total < share * sum(float(other.norm()) for other in expected)


def test_large_scores_and_dropout_on_weights_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    for dropout, larger, uses in ((0.0, 1.0, 3), (0.5, 1.0, 0), (0.0, 1e4, 0)):
        model = bert(attention_probs_dropout_prob=dropout).train()
        for layer in model.base_model.encoder.layer:
            layer.attention.self.query.weight.data *= 0.1 * larger
        with matmul_attention(model):
            assert steps(model, monkeypatch)[2] == uses


def test_an_architecture_with_another_kind_of_attention_keeps_it() -> None:
    config = GPT2Config(vocab_size=99, n_embd=24, n_layer=1, n_head=4, pad_token_id=0)
    model = GPT2ForSequenceClassification(config)
    before = model.config._attn_implementation
    with matmul_attention(model):
        assert model.config._attn_implementation == before
