"""Texts in, token ids out; texts beyond the model's longest input are cut or split into windows."""

from __future__ import annotations

import copy
import functools
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchscore.errors import ModelError, printable
from batchscore.model import pair_tokens
from batchscore.model.backends.architectures import ARCHITECTURES
from batchscore.model.batching import Padding, TokenTypes
from batchscore.model.bundle_facts import json_object
from batchscore.model.careful_encoding import Untokenised, attempted, each_alone
from batchscore.model.cut_places import NOWHERE, cut_places, has_unknown_expressions, settings_of
from batchscore.model.long_texts import LONG, LongTexts
from batchscore.model.python_tokenizers import PythonTokenizer, missing_package, python_tokenizer
from batchscore.model.vocabulary import refuse_no_words
from batchscore.records import Encodings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.model.bundle import Bundle
    from batchscore.records import Text

HEAD_SHARE = 0.25
"""``head-tail`` keeps this share of the tokens from the head, the rest from the tail: 128 and 382 of 510 (Sun et al.
2019, "How to Fine-Tune BERT for Text Classification?")."""
WINDOW_OVERLAP = 0.25
"""Share of a window that the next one repeats."""
_CHUNK_CHARACTERS = 1 << 19
_ODD_TEXTS = (
    "",
    " A  b\n\tC ",
    "Ärger, naïve CAFÉ 😀 1,234.5",
    "да 好 فيلم",
    "<br /> [MASK] @user http://a.b",
)
_NOT_OF_TOKENS = ("truncation", "padding", "decoder")
"""Settings in ``tokenizer.json`` that are never used here."""
_STANDALONE = frozenset(name for each in ARCHITECTURES.values() for name in each.tokenizers)
"""Tokenizer classes that load without transformers."""


class Tokenizer:
    """The bundle's tokenizer: adds special tokens, and counts tokens before any cut."""

    def __init__(self, bundle: Bundle) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            self._loaded = _saved_tokenizer(bundle) or _transformers_tokenizer(bundle)
            self._tokenizer = self._loaded.tokenizer
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            refuse_no_words(self._tokenizer, bundle)
        except (ModelError, MemoryError):
            raise
        except Exception as error:  # tokenizers raises plain Exceptions
            raise ModelError(
                f"{printable(bundle.path)}: its tokenizer cannot be loaded ({printable(error)}). Save it again with "
                "tokenizer.save_pretrained(folder)."
            ) from error
        self.max_length = bundle.max_length
        self.pad_id = self._loaded.pad_id
        self._before, self._after = self._count_special(bundle)
        self._is_wary, self._long = self._of_long_texts()
        if bundle.takes_pairs:
            self._refuse_pairs(bundle)
        self._types = self._token_types(bundle) if self._loaded.has_token_types else None

    def padding(self, mode: str) -> Padding:
        """How sequences of this tokenizer become micro-batches; ``mode`` is one of :data:`batchscore.model.batching.PADDING_MODES`."""
        return Padding(self.max_length, self.pad_id, mode, types=self._types)

    @property
    def padding_side(self) -> str:
        """Where the tokenizer itself would pad: ``right`` or ``left``."""
        return self._loaded.padding_side

    @property
    def pad_token(self) -> str | None:
        """The padding token as text."""
        token: str | None = self._tokenizer.id_to_token(self.pad_id)
        return token

    def always_agrees_with(self, other: Tokenizer) -> bool:
        """Whether all that decides about tokens is the same, so that no text gets other ones."""
        if self._facts() != other._facts():
            return False
        mine, others = self._serialised(), other._serialised()
        return mine == others or _deciding(mine) == _deciding(others)

    def _facts(self) -> list[Any]:
        types = self._types or TokenTypes()
        shown = [*types.before, types.text, *types.after, types.padding]
        return [self.pad_id, self._loaded.truncation_side, shown if any(shown) else []]

    def _serialised(self) -> str:
        to_str = getattr(self._tokenizer, "to_str", None)
        if to_str is None:  # in Python, and always read through transformers
            return json.dumps(type(self._tokenizer).__name__)
        return str(to_str())

    def cut_at(self, max_length: int) -> Tokenizer:
        """The same tokenizer with a smaller ``max_length``."""
        other = copy.copy(self)
        other.max_length = max_length
        return other

    def _refuse_pairs(self, bundle: Bundle) -> None:
        """Raise if two texts a row cannot be tokenised, or leave no room for any token of theirs."""
        from tokenizers import Tokenizer as LibraryTokenizer

        if not isinstance(self._tokenizer, LibraryTokenizer):
            raise ModelError(
                f"{printable(bundle.path)}: two texts a row need a tokenizer of the library tokenizers, and this one is in "
                "Python only. Save it with a fast one, or leave out --text-pair-column."
            )
        if bundle.max_length <= len(self._tokenizer.encode("", "").ids):
            raise _no_room(bundle, "two texts")

    def _count_special(self, bundle: Bundle) -> tuple[int, int]:
        """The numbers of special tokens before and after a text, found by encoding.

        Raises:
            ModelError: they depend on the text, or leave no room for it.
        """
        empty, probe = self._tokenizer.encode("").ids, self._tokenizer.encode("a").ids
        before = next((k for k, pair in enumerate(zip(empty, probe, strict=False)) if pair[0] != pair[1]), 0)
        if probe[: len(empty)] == empty and len(probe) > len(empty):
            before = len(empty)
        after = len(empty) - before
        if probe[:before] + probe[len(probe) - after :] != empty or len(probe) <= len(empty):
            raise ModelError(f"{printable(bundle.path)}: its tokenizer's special tokens depend on the text.")
        if bundle.max_length <= len(empty):
            raise _no_room(bundle, "a text")
        return before, after

    def _token_types(self, bundle: Bundle) -> TokenTypes:
        """The token types of a sequence, found the same way.

        Raises:
            ModelError: they differ within a text.
        """
        types = self._tokenizer.encode("a a a").type_ids
        behind = len(types) - self._after
        content = set(types[self._before : behind])
        if len(content) != 1:
            raise ModelError(f"{printable(bundle.path)}: its tokenizer's token types depend on the text.")
        before, after = tuple(types[: self._before]), tuple(types[behind:])
        return TokenTypes(before, content.pop(), after, self._loaded.pad_type)

    def _of_long_texts(self) -> tuple[bool, LongTexts | None]:
        """Whether any text may make the tokenizer panic, and what takes long texts apart; ``None`` if nothing can."""
        if isinstance(self._tokenizer, PythonTokenizer):
            return False, None
        settings, normalizer = settings_of(self._tokenizer), self._tokenizer.normalizer
        places = cut_places(settings, normalizer.normalize_str if normalizer is not None else str)
        encode = functools.partial(self._tokenizer.encode_batch_fast, add_special_tokens=False)
        long_texts = LongTexts(encode, places) if places is not NOWHERE else None
        return has_unknown_expressions(settings), long_texts

    def token_ids(self, texts: Sequence[Text]) -> Iterator[NDArray[np.int32]]:
        """Token ids of each text, special tokens included, uncut.

        Raises:
            ModelError: a text cannot be tokenised.
        """
        for encoding in self._encodings(texts):
            if isinstance(encoding, Untokenised):
                raise ModelError(f"A text cannot be scored: {encoding.reason}.")
            yield np.array(encoding.ids, dtype=np.int32)

    def _encodings(self, texts: Iterable[Text]) -> Iterator[Any]:
        """The uncut encodings of the library ``tokenizers``, a bounded number of characters at a time."""
        encode = self._tokenizer.encode_batch_fast
        chunk: list[Text] = []
        size = 0
        for text in texts:
            length = len(text) if isinstance(text, str) else sum(map(len, text))
            if chunk and size + length > _CHUNK_CHARACTERS:
                yield from each_alone(chunk, encode, is_wary=self._is_wary or size > LONG)
                chunk, size = [], 0
            chunk.append(text)
            size += length
        if chunk:
            yield from each_alone(chunk, encode, is_wary=self._is_wary or size > LONG)

    def _tokens(self, texts: Iterable[str], long_text: str) -> Iterator[_Tokens | Untokenised]:
        """The tokens of each text, of long ones those alone that ``long_text`` may need."""
        for is_long, some in itertools.groupby(texts, self._is_long):
            if is_long:
                for text in some:
                    yield attempted(functools.partial(self._tokens_of_long, text, long_text))
                continue
            for found in self._encodings(some):
                if isinstance(found, Untokenised):
                    yield found
                else:
                    yield _Tokens(np.array(found.ids, dtype=np.int32), len(found.ids))

    def _is_long(self, *texts: str) -> bool:
        return self._long is not None and any(len(text) > LONG for text in texts)

    def _tokens_of_long(self, text: str, long_text: str) -> _Tokens:
        assert self._long is not None  # noqa: S101 - asked by the caller
        if long_text == "windows":
            content = self._long.all(text)
            return _Tokens(self._between_special(content), len(content) + self._before + self._after)
        room = self.max_length
        ends = self._long.ends(text, room)
        content = ends.first if ends.n_tokens == len(ends.first) else np.concatenate([ends.first, ends.last])
        return _Tokens(self._between_special(content), ends.n_tokens + self._before + self._after)

    def _between_special(self, content: NDArray[np.int32]) -> NDArray[np.int32]:
        special = np.array(self._tokenizer.encode("").ids, dtype=np.int32)
        return np.concatenate([special[: self._before], content, special[self._before :]])

    def encode(self, texts: Sequence[Text | None], long_text: str) -> Encodings:
        """Encode the texts that are not ``None``; ``long_text`` is ``head``, ``head-tail`` or ``windows``.

        Either all are single texts or all are two, for which there is ``head`` only: :mod:`batchscore.model.pair_tokens`.
        """
        if any(isinstance(text, tuple) for text in texts):
            if long_text != "head":
                raise ValueError(f"two texts a row are cut longest first, not {long_text}")
            return self._encode_pairs(texts)
        n_tokens = np.full(len(texts), -1, dtype=np.int32)
        row: list[int] = []
        sequences: list[NDArray[np.int32]] = []
        failures: dict[int, str] = {}
        wanted = [index for index, text in enumerate(texts) if text is not None]
        singles = (text for text in texts if isinstance(text, str))
        for index, found in zip(wanted, self._tokens(singles, long_text), strict=True):
            if isinstance(found, Untokenised):
                failures[index] = found.reason
                continue
            n_tokens[index] = found.n_tokens
            pieces = self._pieces(found.ids, long_text)
            sequences += pieces
            row += [index] * len(pieces)
        special = self._before + self._after
        return Encodings(
            row=np.array(row, dtype=np.int32),
            input_ids=sequences,
            weight=np.array([max(len(ids) - special, 1) for ids in sequences], dtype=np.float64),
            n_tokens=n_tokens,
            failures=failures,
        )

    def _encode_pairs(self, texts: Sequence[Text | None]) -> Encodings:
        cut = pair_tokens.Cut(self.max_length, self._loaded.truncation_side)
        found = self._pairs(text for text in texts if isinstance(text, tuple))
        return pair_tokens.encodings_of(texts, found, cut, has_types=self._loaded.pairs_have_types)

    def _pairs(self, texts: Iterable[tuple[str, str]]) -> Iterator[pair_tokens.PairTokens | Untokenised]:
        """The tokens of each pair, of long texts those alone that may be kept."""
        for is_long, some in itertools.groupby(texts, lambda pair: self._is_long(*pair)):
            if is_long:
                for pair in some:
                    yield attempted(functools.partial(self._tokens_of_long_pair, pair))
                continue
            for found in self._encodings(some):
                yield found if isinstance(found, Untokenised) else pair_tokens.PairTokens(found)

    def _tokens_of_long_pair(self, pair: tuple[str, str]) -> pair_tokens.PairTokens:
        is_cut_left = self._loaded.truncation_side == "left"
        assert self._long is not None  # noqa: S101 - asked by the caller
        first, second = (self._long.shortened(text, self.max_length, at_start=is_cut_left) for text in pair)
        encoding = next(iter(self._tokenizer.encode_batch_fast([(first.text, second.text)])))
        return pair_tokens.PairTokens(encoding, (first.left_out, second.left_out))

    def _pieces(self, ids: NDArray[np.int32], long_text: str) -> list[NDArray[np.int32]]:
        """The sequences of one text: the text itself if it fits."""
        if len(ids) <= self.max_length:
            return [ids]
        content = ids[self._before : len(ids) - self._after]
        room = self.max_length - self._before - self._after
        if long_text == "head" and self._loaded.truncation_side == "left":
            return [self._with_special(ids, content[len(content) - room :])]
        return [self._with_special(ids, piece) for piece in _LONG_TEXT[long_text](content, room)]

    def _with_special(self, ids: NDArray[np.int32], piece: NDArray[np.int32]) -> NDArray[np.int32]:
        return np.concatenate([ids[: self._before], piece, ids[len(ids) - self._after :]])


class _Tokens(NamedTuple):
    """Token ids of a text, special ones included, and how many it has; of more than the longest input some may be left out."""

    ids: NDArray[np.int32]
    n_tokens: int


class _Loaded(NamedTuple):
    """A tokenizer with the methods of the library ``tokenizers``, and the settings that only transformers stores."""

    tokenizer: Any
    pad_id: int
    padding_side: str = "right"
    truncation_side: str = "right"
    has_token_types: bool = False
    """Whether the model gets token types; without them all are 0."""
    pad_type: int = 0
    pairs_have_types: bool = False
    """Whether two texts come with token types."""


def _no_room(bundle: Bundle, what: str) -> ModelError:
    return ModelError(
        f"{printable(bundle.path)}: its longest input, {bundle.max_length} tokens, leaves no room for {what}."
    )


def _saved_tokenizer(bundle: Bundle) -> _Loaded | None:
    """Load ``tokenizer.json`` without transformers, whose import takes seconds; None if that might not be enough.

    Only for a bundle with canaries, which would reveal a difference, and without settings that ``tokenizer.json`` lacks.
    """
    path, settings = bundle.path / "tokenizer.json", bundle.path / "tokenizer_config.json"
    if bundle.canaries is None or not path.exists() or not settings.exists():
        return None
    config = json_object(bundle.path, settings.name)
    if config.get("tokenizer_class") not in _STANDALONE or not isinstance(config.get("pad_token"), str):
        return None
    if config.get("truncation_side", "right") != "right" or config.get("split_special_tokens"):
        return None
    from tokenizers import Tokenizer as SavedTokenizer

    tokenizer = SavedTokenizer.from_file(str(path))
    tokenizer.no_padding()  # the file may ask for a billion tokens
    pad_id = tokenizer.token_to_id(config["pad_token"])
    if pad_id is None or any(tokenizer.encode("a").type_ids):
        return None
    inputs = config.get(
        "model_input_names", ("token_type_ids",)
    )  # its backend gives no types to a model without
    return _Loaded(tokenizer, pad_id, pairs_have_types="token_type_ids" in inputs)


def _transformers_tokenizer(bundle: Bundle) -> _Loaded:
    from transformers import AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            bundle.path, use_fast=True, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:
        raise missing_package(bundle.path, error) or error from error
    if tokenizer.is_fast:
        _refuse_other_tokens(tokenizer, bundle)
    own_id = pad_id_of_model(bundle)
    has_types = "token_type_ids" in tokenizer.model_input_names
    return _Loaded(
        tokenizer.backend_tokenizer if tokenizer.is_fast else python_tokenizer(tokenizer, bundle.path),
        int(tokenizer.pad_token_id or 0) if own_id is None else own_id,
        tokenizer.padding_side,
        tokenizer.truncation_side,
        has_types,
        tokenizer.pad_token_type_id,
        has_types,
    )


def _refuse_other_tokens(tokenizer: Any, bundle: Bundle) -> None:
    """Raise if transformers does something in Python to a text that the library alone does not."""
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    texts = [*_ODD_TEXTS, "".join(map(str, tokenizer.all_special_tokens))]
    ours = [tokenizer.backend_tokenizer.encode(text).ids for text in texts]
    if ours != [tokenizer(text, verbose=False)["input_ids"] for text in texts]:
        raise ModelError(
            f"{printable(bundle.path)}: its tokenizer gives other tokens than transformers' own. Save it again with "
            "tokenizer.save_pretrained(folder)."
        )


def pad_id_of_model(bundle: Bundle) -> int | None:
    """The model's own padding id, if in its vocabulary: a head may look for the last token that is not padding."""
    config = json_object(bundle.path, "config.json") if (bundle.path / "config.json").exists() else {}
    text = config.get("text_config")
    text = text if isinstance(text, dict) else {}
    pad_id, size = (config.get(key, text.get(key)) for key in ("pad_token_id", "vocab_size"))
    is_id = isinstance(pad_id, int) and 0 <= pad_id < (size if isinstance(size, int) else float("inf"))
    return pad_id if is_id else None


def _head(content: NDArray[np.int32], room: int) -> list[NDArray[np.int32]]:
    return [content[:room]]


def _head_tail(content: NDArray[np.int32], room: int) -> list[NDArray[np.int32]]:
    head = round(room * HEAD_SHARE)
    return [np.concatenate([content[:head], content[len(content) - (room - head) :]])]


def _windows(content: NDArray[np.int32], room: int) -> list[NDArray[np.int32]]:
    """Evenly spaced windows that cover the text, ``room`` tokens each."""
    step = max(1, room - round(room * WINDOW_OVERLAP))
    count = 1 + -(-(len(content) - room) // step)
    starts = np.linspace(0, len(content) - room, count).round().astype(int)
    return [content[start : start + room] for start in starts]


_LONG_TEXT = {"head": _head, "head-tail": _head_tail, "windows": _windows}


def _deciding(serialised: str) -> Any:
    """The settings of a ``tokenizer.json`` without those that decide about no token."""
    settings = json.loads(serialised)
    if isinstance(settings, dict):
        for name in _NOT_OF_TOKENS:
            settings.pop(name, None)
    return settings
