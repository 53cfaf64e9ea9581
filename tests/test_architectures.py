"""What is known of an architecture stands in its file, is as transformers has it, and nobody else says it again."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.models.auto import configuration_auto

import batchscore
from batchscore.model.backends.architectures import ARCHITECTURES, architecture_of
from batchscore.model.backends.encoders import encoder_of

CONFIG_MAPPING_NAMES: Any = configuration_auto.CONFIG_MAPPING_NAMES  # type: ignore[attr-defined]
PACKAGE = Path(batchscore.__file__).parent
SMALL = {"hidden_size": 96, "num_attention_heads": 4, "intermediate_size": 120}
COMPUTED = {name: each.classifier for name, each in ARCHITECTURES.items() if each.classifier}
NAMES = {
    *ARCHITECTURES,
    *(name for each in ARCHITECTURES.values() for name in each.tokenizers),
    *(word for each in COMPUTED.values() for word in (each.class_name, each.title)),
}


def strings_of(path: Path) -> list[str]:
    """The strings of a module but its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in told)
    return [node.value for node in constants if isinstance(node.value, str)]


def test_no_module_but_its_file_names_an_architecture() -> None:
    pattern = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, sorted(NAMES)))})(?![\w-])")
    found = {
        f"{path.relative_to(PACKAGE)}: {match[0]}"
        for path in PACKAGE.rglob("*.py")
        if "architectures" not in path.parts
        for text in strings_of(path)
        if (match := pattern.search(text))
    }
    assert not found


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_entry_is_a_model_type_of_transformers_under_its_own_name(name: str) -> None:
    assert ARCHITECTURES[name].model_type == name in CONFIG_MAPPING_NAMES


def test_all_that_are_called_roberta_number_positions_as_it_does() -> None:
    kin = [name for name in CONFIG_MAPPING_NAMES if "roberta" in name]
    assert "roberta" in kin
    assert all(architecture_of(name).has_offset_positions for name in kin)


@pytest.mark.parametrize("name", [None, 7, "gpt2", ""])
def test_nothing_is_known_of_an_architecture_without_a_file(name: object) -> None:
    unknown = architecture_of(name)
    assert (unknown.layers, unknown.classifier, unknown.has_offset_positions) == (None, None, False)


@pytest.mark.parametrize("name", COMPUTED)
def test_a_classifier_that_is_computed_here_answers_as_transformers_does(name: str) -> None:
    """From nothing but the names in its file, so that a new one is tried by being there."""
    torch.manual_seed(0)
    auto: Any = AutoModelForSequenceClassification
    small = {COMPUTED[name].renamed.get(option, option): size for option, size in SMALL.items()}
    model = auto.from_config(
        AutoConfig.for_model(name, num_hidden_layers=2, vocab_size=99, pad_token_id=1, **small)
    ).eval()
    told = {**model.config.to_dict(), "architectures": [type(model).__name__]}
    encoder = encoder_of(model.state_dict(), told, torch.float32)
    assert encoder is not None
    ids, mask = torch.randint(5, 99, (3, 16)), torch.ones(3, 16, dtype=torch.int64)
    mask[1, 9:] = 0
    with torch.inference_mode():
        expected = model(input_ids=ids, attention_mask=mask).logits
        torch.testing.assert_close(encoder(ids, mask), expected, atol=1e-5, rtol=1e-4)
