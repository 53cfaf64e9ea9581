"""BERT's kin, computed by our encoder from random weights that make every token count, against transformers."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lively import LOGITS, lively, saved
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from batchscore.model.backends.architectures import ARCHITECTURES, BertLike
from batchscore.model.backends.architectures.architecture import REQUIRED
from batchscore.model.backends.encoders import Loadable, encoder_of, load_encoder
from batchscore.model.backends.packed import pack
from batchscore.model.canaries import CANARY_TOLERANCE

LENGTHS = (66, 65, 49, 33, 32, 17, 16, 9, 3, 2, 1)
KIN = {name: each.classifier for name, each in ARCHITECTURES.items() if isinstance(each.classifier, BertLike)}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("bert", {}),
    ("bert", {"num_hidden_layers": 1, "hidden_act": "gelu_new", "num_labels": 1}),
    ("bert", {"hidden_act": "silu", "type_vocab_size": 3, "layer_norm_eps": 1e-3, "num_labels": 5}),
    ("distilbert", {}),
    ("distilbert", {"hidden_act": "gelu_pytorch_tanh", "num_hidden_layers": 4}),
    ("roberta", {}),
    ("roberta", {"type_vocab_size": 1, "layer_norm_eps": 1e-5, "hidden_act": "gelu_new"}),
    ("roberta", {"num_hidden_layers": 1, "pad_token_id": 4, "num_labels": 1}),
    ("xlm-roberta", {"type_vocab_size": 1, "num_hidden_layers": 2, "layer_norm_eps": 1e-5}),
    ("xlm-roberta", {"pad_token_id": 0, "num_attention_heads": 1, "hidden_act": "relu"}),
    ("camembert", {"type_vocab_size": 1}),
    ("camembert", {"num_hidden_layers": 4, "num_labels": 7, "hidden_act": "swish"}),
    ("electra", {"embedding_size": 12}),
    ("electra", {"embedding_size": 32, "num_hidden_layers": 1, "hidden_act": "relu"}),
    ("electra", {"embedding_size": 48, "num_labels": 1, "layer_norm_eps": 1e-5}),
    ("mpnet", {}),
    ("mpnet", {"num_hidden_layers": 1, "num_attention_heads": 8}),
    ("mpnet", {"max_position_embeddings": 300, "hidden_act": "relu", "num_labels": 2}),
    ("albert", {"embedding_size": 12}),
    ("albert", {"embedding_size": 32, "num_hidden_layers": 1, "hidden_act": "gelu"}),
    ("albert", {"embedding_size": 40, "num_hidden_groups": 2, "inner_group_num": 2}),
    ("albert", {"embedding_size": 12, "num_hidden_layers": 4, "num_hidden_groups": 3}),
]
NAMES = [f"{name} {options or ''}" for name, options in CASES]
WITHOUT_TYPES = ("distilbert", "mpnet")


@pytest.fixture(autouse=True)
def _without_gradients() -> Any:
    with torch.inference_mode():
        yield


def ours(model: Any, **changes: Any) -> Loadable:
    encoder = encoder_of(model.state_dict(), told(model, **changes), torch.float32)
    assert encoder is not None
    return encoder


def told(model: Any, **changes: Any) -> dict[str, Any]:
    return {**model.config.to_dict(), "architectures": [type(model).__name__], **changes}


def texts(lengths: tuple[int, ...], vocabulary: int, pad: int) -> list[torch.Tensor]:
    """Token ids of texts of these lengths; the longest has the padding token in it, at its start and twice in a row."""
    generator = torch.Generator().manual_seed(1)
    found = [torch.randint(0, vocabulary, (n,), generator=generator) for n in lengths]
    found = [torch.where(ids == pad, (pad + 9) % vocabulary, ids) for ids in found]
    found[0][[0, 5, 6]] = pad
    return found


def padded(rows: list[torch.Tensor], fill: int, width: int | None = None) -> torch.Tensor:
    width = width or max(map(len, rows))
    return torch.stack([functional.pad(row, (0, width - len(row)), value=fill) for row in rows])


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    for probabilities in (lambda each: each.softmax(-1), torch.sigmoid):
        torch.testing.assert_close(probabilities(found), probabilities(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "options"), CASES, ids=NAMES)
def test_answers_are_those_of_transformers_for_each_text_alone(name: str, options: dict[str, Any]) -> None:
    model = lively(name, **options)
    pad = model.config.pad_token_id
    longest = 200 if model.config.max_position_embeddings == 300 else LENGTHS[0]
    rows = texts((longest, *LENGTHS[1:]), 99, pad)
    types = [torch.arange(len(row)) * 5 // 3 % getattr(model.config, "type_vocab_size", 1) for row in rows]
    plain = torch.cat([model(input_ids=row[None]).logits for row in rows])
    assert LOGITS / 3 < plain.std(dim=0).mean() < LOGITS * 2
    taken = {} if name in WITHOUT_TYPES else {"token_type_ids": types}
    typed = torch.cat(
        [
            model(input_ids=row[None], **{key: value[k][None] for key, value in taken.items()}).logits
            for k, row in enumerate(rows)
        ]
    )
    is_typed = name not in WITHOUT_TYPES and model.config.type_vocab_size > 1
    assert ((typed - plain).abs().max() > 0.5) == is_typed
    encoder, forward = ours(model), pack(ours(model), torch.float32)
    room = model.config.max_position_embeddings - (pad + 1) * ARCHITECTURES[name].has_offset_positions
    for each in (encoder, forward):
        for width in (
            longest,
            min(room, longest + 2),
        ):  # as wide as the longest row, and padding in every row
            ids = padded(rows, pad, width)
            mask = padded([torch.ones_like(row) for row in rows], 0, width)
            close(each(ids, mask), plain)
            close(each(ids, mask, torch.zeros_like(ids)), plain)
            close(each(ids, mask, padded(types, 0, width)), typed)
        close(torch.cat([each(row[None], None) for row in rows]), plain)


@pytest.mark.parametrize("name", ["roberta", "mpnet"])
def test_positions_are_counted_as_transformers_counts_them(name: str) -> None:
    """A padding token in a text has no number, and those behind it are counted on; padding at the left moves nothing."""
    model, length = lively(name), 12
    ids = torch.randint(5, 99, (3, length), generator=torch.Generator().manual_seed(2))
    ids[0, 3:5] = ids[1, 0] = ids[2, :4] = model.config.pad_token_id
    mask = torch.ones_like(ids)
    mask[2, :4] = 0
    for each in (ours(model), pack(ours(model), torch.float32)):
        expected = model(input_ids=ids, attention_mask=mask).logits
        close(each(ids[:2], None), model(input_ids=ids[:2]).logits)
        close(each(ids[:2], mask[:2]), expected[:2])


def test_a_text_longer_than_the_table_of_positions_is_an_error() -> None:
    for name in KIN:
        model = lively(name, max_position_embeddings=48, embedding_size=12)
        ids = torch.full((1, 49), 7)
        for types in (None, torch.zeros_like(ids)):
            with pytest.raises((IndexError, RuntimeError)):
                ours(model)(ids, None, types)


@pytest.mark.parametrize("name", KIN)
def test_bfloat16_answers_are_within_the_tolerance_of_canaries_or_as_near_as_those_of_transformers(
    name: str,
) -> None:
    model = lively(name, embedding_size=12)
    rows = texts(LENGTHS, 99, model.config.pad_token_id)
    ids, mask = padded(rows, model.config.pad_token_id), padded([torch.ones_like(row) for row in rows], 0)
    expected = model(input_ids=ids, attention_mask=mask).logits.softmax(-1)
    found = pack(ours(model), torch.bfloat16)(ids, mask).float().softmax(-1)
    theirs = lively(name, embedding_size=12).bfloat16()(input_ids=ids, attention_mask=mask).logits
    rounding = (theirs.float().softmax(-1) - expected).abs()
    assert (found - expected).abs().mean() <= max(CANARY_TOLERANCE, 2 * float(rounding.mean()))
    assert 0 < (found - expected).abs().max() <= max(CANARY_TOLERANCE, 3 * float(rounding.max()))


def test_shared_weights_are_packed_once() -> None:
    packed: Any = pack(ours(lively("albert", num_hidden_layers=5, embedding_size=12)), torch.float32)
    assert len(packed._layers) == 4
    assert len({id(layer) for layer in packed._layers}) == 1


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("roberta", {"hidden_act": "gelu_fast"}),
        ("roberta", {"is_decoder": True}),
        ("roberta", {"architectures": ["RobertaForTokenClassification"]}),
        ("roberta", {"model_type": "xlm-roberta"}),
        ("roberta", {"num_attention_heads": 5}),
        ("roberta", {"num_hidden_layers": 2}),
        ("roberta", {"vocab_size": 98}),
        ("roberta", {"type_vocab_size": 3}),
        ("roberta", {"intermediate_size": 20}),
        ("roberta", {"layer_norm_eps": "small"}),
        ("roberta", {"pad_token_id": -1}),
        ("roberta", {"chunk_size_feed_forward": 7}),
        ("roberta", {"quantization_config": {"quant_method": "gptq"}}),
        ("roberta", {"id2label": {"0": "a", "1": "b"}}),
        ("electra", {"embedding_size": 32}),
        ("electra", {"position_embedding_type": "relative_key_query"}),
        ("mpnet", {"pad_token_id": 2}),
        ("mpnet", {"relative_attention_num_buckets": 16}),
        ("albert", {"num_hidden_groups": 2}),
        ("albert", {"inner_group_num": 0}),
        ("distilbert", {"num_attention_heads": 2}),
    ],
    ids=str,
)
def test_what_is_not_certain_is_left_to_transformers(
    name: str, change: dict[str, Any], tmp_path: Path
) -> None:
    model = lively(name, embedding_size=12)
    assert load_encoder(saved(model, tmp_path), torch.float32, "cpu") is not None
    assert load_encoder(saved(model, tmp_path, **change), torch.float32, "cpu") is None


@pytest.mark.parametrize("name", KIN)
def test_tensors_of_another_task_are_no_obstacle_and_unknown_ones_are(name: str, tmp_path: Path) -> None:
    names = KIN[name]
    saved(lively(name, embedding_size=12), tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    more = {f"{beginning}x.weight": torch.ones(2) for beginning in names.unused}
    save_file({**weights, **more}, path, {"format": "pt"})
    assert load_encoder(tmp_path, torch.float32, "cpu") is not None
    for changed in (
        {**weights, f"{names.prefix}adapter.weight": torch.ones(2)},
        {key: value for key, value in weights.items() if key != f"{names.output}.bias"},
        {key: value.char() if "word" in key else value for key, value in weights.items()},
    ):
        save_file(changed, path, {"format": "pt"})
        assert load_encoder(tmp_path, torch.float32, "cpu") is None


OF_NO_CONSEQUENCE = {
    *("attention_probs_dropout_prob", "hidden_dropout_prob", "classifier_dropout", "classifier_dropout_prob"),
    *("dropout", "attention_dropout", "qa_dropout", "seq_classif_dropout"),
    *("num_labels", "problem_type", "use_cache", "output_attentions", "output_hidden_states", "return_dict"),
    *("_attn_implementation", "sinusoidal_pos_embds", "to_dict", "pad_token_id", "max_position_embeddings"),
    *("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels"),
    *("summary_first_dropout", "summary_last_dropout", "initializer_range"),
}
"""Options that transformers' code reads, of which no answer of a classifier depends beyond what is told by its weights."""


@pytest.mark.parametrize("name", KIN)
def test_every_option_that_transformers_reads_is_known(name: str) -> None:
    """And its default is that of the configuration's class."""
    names, kind = KIN[name], type(AutoConfig.for_model(name))
    module = inspect.getmodule(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[kind])
    read = set(re.findall(r"\bconfig\.([a-z_0-9]+)", inspect.getsource(module)))  # type: ignore[arg-type]
    theirs = {names.renamed.get(option, option) for option in names.defaults} | set(names.defaults)
    assert read - theirs - {*REQUIRED, *names.required} - OF_NO_CONSEQUENCE == set()
    defaults = {option: getattr(kind(), names.renamed.get(option, option)) for option in names.defaults}
    assert defaults == names.defaults


@pytest.mark.parametrize("name", KIN)
def test_options_that_are_absent_have_their_defaults(name: str) -> None:
    names = KIN[name]
    options = names.options({})
    assert options == names.defaults
    assert names.options({names.renamed.get("hidden_size", "hidden_size"): 8}) == {
        **options,
        "hidden_size": 8,
    }
