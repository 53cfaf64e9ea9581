r"""Where a text can be cut so that the tokens of its pieces, one after the other, are its tokens.

Tokenising takes a hundred bytes and more for each character, so a text of many megabytes is taken apart first. A place is
one by proof, for the kinds of tokenizers that are known here, never by trial. The reasons:

- A cut lies between a letter, a digit or a sign of ASCII and what begins a word of its own: a space, say. Normalisation looks
  at one character, or at one grapheme; nothing to the right of such a place combines with what is to the left of it. It may
  make something else of a letter (``\u00e9`` becomes ``e`` and an accent, which joins the sign behind it), so that before anything but
  a space only letters and digits count of which it makes letters and digits: those of ASCII, as it is asked.
- Whatever splits a text into words has one of its borders there. A regular expression, which finds its matches from left to right,
  goes on there as it begins a text, as none of those known here looks back, or has a match that contains the place.
- What is found before words are, added tokens such as ``[MASK]``, contains no such place.
- The model looks at one word at a time.

Where that cannot be said of a tokenizer, none of its texts is cut.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

_LETTERS = (
    "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u017f\u0391-\u03a1\u03a3-\u03c9\u0410-\u044f\u05d0-\u05ea\u0621-\u063a"
    "\u0641-\u064a\u0904-\u0939\u0e01-\u0e30\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3"
)
"""Letters in any version of Unicode, none of which combines with a sign or a space to its right."""
_SIGNS = r"!-/:-@\[-\^`{-~"
"""Signs of ASCII, but for the underscore, which some expressions take for a letter."""
_ENDS = f"{_LETTERS}0-9{_SIGNS}"
_SPACE = f"(?<=[{_ENDS}])(?= +[{_ENDS}])"
"""What follows spaces may not combine with the last of them."""
_ONE_SPACE = f"(?<=[{_ENDS}])(?= [A-Za-z0-9])"
"""For those that strip the texts that they are given."""
_BLANK = f"(?<=[{_ENDS}])(?=[ \\t\\n]+[{_ENDS}])"
_SIGN = f"(?<=[{_LETTERS}0-9])(?=[.,;:!?])"
_PLAIN_SIGN = "(?<=[A-Za-z0-9])(?=[.,;:!?])"
"""``_SIGN`` for whatever normalizer."""
_IDEOGRAPHS = "(?<=[\u4e00-\u9fa5])(?=[\u4e00-\u9fa5])"
_LINE_END = f"(?<=[{_LETTERS}0-9])(?=\\n+[{_ENDS}])"
_WIDE_SIGN = f"(?<=[{_LETTERS}0-9])(?=[\u3001\u3002\uff01\uff0c\uff1b\uff1f])"
_NUMBER = f"(?<=[{_LETTERS}])(?=[0-9])"
_PLAIN_LINE_END = f"(?<=[A-Za-z0-9])(?=\\n+[{_ENDS}])"
_PLAIN_NUMBER = "(?<=[A-Za-z])(?=[0-9])"
_BYTE_LEVEL = (_SPACE, _LINE_END, _SIGN, _WIDE_SIGN, _NUMBER)
"""No apostrophe is among the signs: some expressions have ``'s`` in one match with the word before it."""
_PLAIN = {_SIGN: _PLAIN_SIGN, _LINE_END: _PLAIN_LINE_END, _NUMBER: _PLAIN_NUMBER, _WIDE_SIGN: ""}
"""What stands for places where a normalizer may make something else of the letter before them."""

_CASED = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_EXPRESSIONS = frozenset(
    {
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        *(
            rf"{_SHORT}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{number}|{_REST}"
            for number in (r"\p{N}", r"\p{N}{1,3}", r"\p{N}{1,2}")
        ),
        "|".join(
            (
                rf"[^\r\n\p{{L}}\p{{N}}]?[{_CASED[0]}]*[{_CASED[1]}]+{_SHORT}?",
                rf"[^\r\n\p{{L}}\p{{N}}]?[{_CASED[0]}]+[{_CASED[1]}]*{_SHORT}?",
                r"\p{N}{1,3}",
                _REST.replace(r"[\r\n]*", r"[\r\n/]*", 1),
            )
        ),
    }
)
"""How GPT-2, GPT-4, Llama 3 and Qwen, and GPT-4o split a text: no match contains one of ``_BYTE_LEVEL``."""
_LOCAL_NORMALIZERS = frozenset(
    {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "StripAccents"}
)
_LOCAL_EXPRESSIONS = frozenset({" {2,}"})
"""Those of a ``Replace``; as the character before a place is no space, no match contains it."""
_MODELS = frozenset({"BPE", "Unigram", "WordLevel", "WordPiece"})
_NEVER = re.compile("(?!)")


class Places(NamedTuple):
    """Expressions that match nothing, at places where a text can be cut; each may have no match at all."""

    any: re.Pattern[str]
    words: re.Pattern[str]
    """Those before a space alone: pieces between them may also be put together in any other order."""


NOWHERE = Places(_NEVER, _NEVER)


def cut_places(settings: Mapping[str, Any], normalised: Callable[[str], str]) -> Places:
    """The places where texts of a tokenizer can be cut, by its :func:`settings_of`.

    ``normalised`` is what its normalizer makes of a text.
    """
    if settings["model"] not in _MODELS or settings["dropout"]:
        return NOWHERE
    normalizers = _steps(settings["normalizer"], "normalizers")
    steps = _steps(settings["pre_tokenizer"], "pretokenizers")
    if not _keeps_blanks(normalised, are_marked=[each.get("type") for each in steps] == ["Metaspace"]):
        return NOWHERE
    splits = _splits(steps, normalizers)
    if any(each.get("type") != "NFC" for each in normalizers):
        splits = _plain_splits(splits, normalised)
    proven = [
        split
        for split in splits
        if all(_is_local(step, split) for step in normalizers)
        and all(_lies_within_a_piece(token, split, normalised) for token in settings["added_tokens"])
    ]
    if not proven:
        return NOWHERE
    words = [split for split in proven if split in (_SPACE, _ONE_SPACE, _BLANK)]
    return Places(re.compile("|".join(proven)), re.compile("|".join(words)) if words else _NEVER)


def settings_of(tokenizer: Any) -> dict[str, Any]:
    """What :func:`cut_places` looks at, of a tokenizer of the library ``tokenizers``; steps in Python are of type ``Custom``."""
    added = tokenizer.get_added_tokens_decoder().values()
    return {
        "model": type(tokenizer.model).__name__,
        "dropout": getattr(tokenizer.model, "dropout", None),
        "normalizer": _settings_of_step(tokenizer.normalizer),
        "pre_tokenizer": _settings_of_step(tokenizer.pre_tokenizer),
        "added_tokens": [
            {name: getattr(token, name) for name in ("content", "single_word", "rstrip")} for token in added
        ],
    }


def has_unknown_expressions(settings: Mapping[str, Any]) -> bool:
    """Whether regular expressions take part of which it is not known what they make of a text."""
    steps = [
        *_steps(settings["normalizer"], "normalizers"),
        *_steps(settings["pre_tokenizer"], "pretokenizers"),
    ]
    found = {
        (step.get("pattern") or {}).get("Regex") for step in steps if isinstance(step.get("pattern"), dict)
    }
    return not found <= {None, *_EXPRESSIONS, *_LOCAL_EXPRESSIONS}


def _settings_of_step(step: Any) -> dict[str, Any] | None:
    if step is None:
        return None
    try:
        found: dict[str, Any] = json.loads(step.__getstate__())
    except Exception:  # noqa: BLE001 - the library raises plain ones for steps in Python
        return {"type": "Custom"}
    return found


def _steps(step: Mapping[str, Any] | None, name: str) -> list[Mapping[str, Any]]:
    """The steps of a sequence, at any depth."""
    if step is None:
        return []
    if step.get("type") != "Sequence":
        return [step]
    return [one for each in step[name] for one in _steps(each, name)]


def _keeps_blanks(normalised: Callable[[str], str], *, are_marked: bool) -> bool:
    """Whether what divides words still does when it is normalised; ``are_marked``: ``\u2581`` divides them too."""
    found = [normalised(f"a{blank}a") for blank in " \t\n"]
    marks = "\u2581" if are_marked else ""
    return all(len(form) == len("a a") and (form[1].isspace() or form[1] in marks) for form in found)


def _plain_splits(splits: tuple[str, ...], normalised: Callable[[str], str]) -> tuple[str, ...]:
    """The places that a normalizer leaves what they are."""
    letters, digits, signs = string.ascii_letters, string.digits, ".,;:!?"
    is_plain = (
        all(normalised(f"x{each}")[-1:].isalpha() for each in letters)
        and all(normalised(f"x{each}")[-1:].isdigit() for each in digits)
        and all(normalised(f"x{each}").endswith(each) for each in signs)
    )
    found = (_PLAIN.get(split, split) if is_plain or split not in _PLAIN else "" for split in splits)
    return tuple(filter(None, found))


def _splits(steps: list[Mapping[str, Any]], normalizers: list[Mapping[str, Any]]) -> tuple[str, ...]:
    """The places at which any of the steps splits a text for certain."""
    kinds = [str(step.get("type")) for step in steps]
    is_always = all(step.get("prepend_scheme", "always") == "always" for step in steps)
    are_set_apart = any(each.get("handle_chinese_chars") for each in normalizers)
    if are_set_apart and kinds[:1] not in (["BertPreTokenizer"], ["Whitespace"], ["WhitespaceSplit"]):
        return ()  # spaces appear beside ideographs, and those that were there are not told from them
    if any(each.get("type") == "Strip" for each in normalizers):
        is_known = kinds == ["Metaspace"] and is_always and steps[0].get("split", True)
        return (_ONE_SPACE,) if is_known else ()
    if kinds == ["Metaspace"]:
        return (_SPACE,) if steps[0].get("split", True) else ()
    if kinds == ["WhitespaceSplit"] or (kinds == ["WhitespaceSplit", "Metaspace"] and is_always):
        return (_BLANK,)
    if kinds in (["BertPreTokenizer"], ["Whitespace"]):
        return (_BLANK, _SIGN, _IDEOGRAPHS) if are_set_apart else (_BLANK, _SIGN)
    return _byte_level_splits([step for step in steps if step.get("type") != "Digits"])


def _byte_level_splits(steps: list[Mapping[str, Any]]) -> tuple[str, ...]:
    """The same of what splits a text by a known expression."""
    *others, last = steps or [{}]
    if last.get("type") != "ByteLevel" or len(others) > 1:
        return ()
    if not others and last.get("use_regex", True):
        return (_SPACE,) if last.get("add_prefix_space") else _BYTE_LEVEL
    is_known = (
        others
        and others[0].get("type") == "Split"
        and others[0].get("behavior") == "Isolated"
        and not others[0].get("invert")
        and others[0]["pattern"].get("Regex") in _EXPRESSIONS
    )
    is_plain = not last.get("use_regex", True) and not last.get("add_prefix_space")
    return _BYTE_LEVEL if is_known and is_plain else ()


def _is_local(step: Mapping[str, Any], split: str) -> bool:
    """Whether a normalizer makes of a text what it makes of its pieces."""
    kind, pattern = step.get("type"), step.get("pattern") or {}
    if kind == "Replace" and "String" in pattern:
        return _is_replaced_within(str(pattern["String"]), str(step.get("content")), split)
    if kind == "Replace":
        return pattern.get("Regex") in _LOCAL_EXPRESSIONS
    return kind in _LOCAL_NORMALIZERS or (kind == "Strip" and split == _ONE_SPACE)


def _is_replaced_within(old: str, new: str, split: str) -> bool:
    """Whether what is replaced lies within a piece, and still ends one as a word does; a space may become a mark."""
    if (old, new) == (" ", "\u2581"):
        return split in (_SPACE, _ONE_SPACE)
    is_solid = not re.search(r"\s|\u2581", old + new) and re.search(f"[{_ENDS}]$", new) is not None
    return is_solid and split in (_SPACE, _ONE_SPACE, _BLANK)


def _lies_within_a_piece(token: Mapping[str, Any], split: str, normalised: Callable[[str], str]) -> bool:
    """Whether an added token is found in a piece where it is found in the text, and takes the same spaces with it."""
    if token.get("single_word") or token.get("rstrip"):
        return False
    return not any(_has_place(form, split) for form in {token["content"], normalised(token["content"])})


def _has_place(text: str, split: str) -> bool:
    """Whether a text can be cut somewhere within it, if a word follows."""
    return re.search(split, f"{text}a") is not None
