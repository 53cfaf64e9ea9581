"""What given label values mean: read together, as names or as exactly the ids, or refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.errors import UsageError
from batchscore.model.given import Survey
from batchscore.model.label_sets import SetsSurvey
from batchscore.model.labels import GivenLabels, LabelNames, LabelValues, Meaning, parse_label_map
from batchscore.model.numbers import NumbersSurvey
from batchscore.records import UNKNOWN_LABEL, UNLABELLED

BINARY = ("NEGATIVE", "POSITIVE")
ABC = ("a", "b", "c")
STARS = ("1 star", "2 stars", "3 stars", "4 stars", "5 stars")


def indices(values: Sequence[Any], labels: Sequence[str], *maps: str, names: Sequence[str] = ()) -> list[int]:
    """The index of each value of a file that holds these; fails where they are refused."""
    label_names = LabelNames(labels, parse_label_map(maps))
    meaning = meaning_of(values, labels, *maps, names=names)
    assert meaning is not None
    found = GivenLabels(label_names, meaning.reading, names).indices(values, len(values))
    return [int(index) for index in found]


def meaning_of(
    values: Sequence[Any], labels: Sequence[str], *maps: str, names: Sequence[str] = ()
) -> Meaning | None:
    found = LabelValues(LabelNames(labels, parse_label_map(maps)), names)
    found.update(values)
    return found.meaning()


def problem(values: Sequence[Any], labels: Sequence[str], *maps: str) -> str:
    found = LabelValues(LabelNames(labels, parse_label_map(maps)))
    found.update(values)
    assert found.meaning() is None
    return found.problem("stars")


@pytest.mark.parametrize(
    ("labels", "values", "expected"),
    [
        (BINARY, ["negative", " Positive\n", "pos", "NEG"], [0, 1, 1, 0]),
        (BINARY, [1, "0", 1.0, "1.0", 0], [1, 0, 1, 1, 0]),
        (BINARY, ["1"], [1]),
        (BINARY, [True, "FALSE"], [1, 0]),
        (BINARY, ["pos", "NA", "meh"], [1, UNKNOWN_LABEL, UNKNOWN_LABEL]),
        (BINARY, ["0", "1", "unsure"], [0, 1, UNKNOWN_LABEL]),
        (BINARY, ["pos", None, float("nan"), "", "  "], [1, *[UNLABELLED] * 4]),
        (BINARY, ["pos", "1"], [1, UNKNOWN_LABEL]),
        (BINARY, [], []),
        (("POSITIVE", "NEGATIVE"), [True], [0]),
        (("POSITIVE", "NEGATIVE"), [1, 0], [1, 0]),
        (("other", "neg"), [True], [0]),
        (("ham", "spam"), ["true", "false"], [1, 0]),
        (ABC, [0, 2], [0, 2]),
        (("1", "2", "3", "4", "5"), [1, "5.0"], [0, 4]),
        (("1.0", "2.0"), ["1.0", 2], [0, 1]),
        (("Yes", "yes"), ["YES", "0", "1"], [UNKNOWN_LABEL, 0, 1]),
        (("0", "1"), [1, 0], [1, 0]),
        (("1", "0"), [1, 0], [0, 1]),
        (STARS, ["1 star", "5 STARS"], [0, 4]),
    ],
)
def test_values_are_names_or_exactly_the_ids(
    labels: tuple[str, ...], values: list[Any], expected: list[int]
) -> None:
    assert indices(values, labels) == expected


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        pytest.param(BINARY, [1, 2, 3, 4, 5], id="five stars, two labels"),
        pytest.param(BINARY, [1, 2], id="one and two"),
        pytest.param(BINARY, [0, 4], id="zero and four"),
        pytest.param(BINARY, [1, -1], id="one and minus one"),
        pytest.param(BINARY, [0, 1, 2], id="a third number"),
        pytest.param(BINARY, [0, 1, -1], id="minus one for none"),
        pytest.param(BINARY, [0.5, 1], id="a share"),
        pytest.param(BINARY, ["01", "00"], id="zeros in front"),
        pytest.param(BINARY, ["good", "bad"], id="other words"),
        pytest.param(BINARY, ["maybe"], id="one other word"),
        pytest.param(ABC, [1, 2], id="ids that may count from one"),
        pytest.param(ABC, [1, 2, 3], id="ids that count from one"),
        pytest.param(ABC, [True], id="a boolean of three labels"),
        pytest.param(("1", "2", "3", "4", "5"), [0, 1, 2], id="names that are numbers, and ids"),
        pytest.param(STARS, [1, 2, 3], id="a number may be a star or an id"),
        pytest.param(STARS, [0, 1, 2, 3, 4], id="even from zero"),
    ],
)
def test_what_cannot_be_told_is_refused(labels: tuple[str, ...], values: list[Any]) -> None:
    assert "--label-map" in problem(values, labels)


def test_the_refusal_names_the_values_the_labels_and_the_option_with_both() -> None:
    assert problem([5, 1, 2, 3, 4], BINARY) == (
        "the numbers in its label column stars (1, 2, 3, 4, 5) are neither names nor exactly the ids of the model's labels "
        "(0 NEGATIVE, 1 POSITIVE). Say what they mean: for example --label-map 1..2=NEGATIVE --label-map 3= --label-map "
        "4..5=POSITIVE (3= is no label); or name another --label-column; or score without labels: --no-labels"
    )
    assert "--label-map -1=NEGATIVE --label-map 1=POSITIVE" in problem([1, -1], BINARY)
    assert "--label-map '1=1 star' --label-map '2=2 stars'" in problem([1, 2, 3, 4, 5], STARS)
    assert "--label-map ids if they count from 0" in problem([1, 2], ABC)


def test_a_value_as_long_as_a_review_is_not_said() -> None:
    text = "A fine film that I would see again"
    said = problem([text, "good"], BINARY)
    assert "(good, (a text of 34 characters))" in said or "((a text of 34 characters), good)" in said
    assert "fine film" not in said


@pytest.mark.parametrize(
    ("labels", "maps", "values", "expected"),
    [
        (BINARY, ["1..2=NEGATIVE", "4..5=POSITIVE", "3="], [1, 2, 3, 4, "5.0"], [0, 0, -1, 1, 1]),
        (BINARY, ["1..2=NEGATIVE 4..5=POSITIVE 3="], [1, 2, 3, 4, 5], [0, 0, -1, 1, 1]),
        (BINARY, ["-1=NEGATIVE", "1=POSITIVE"], [1, -1], [1, 0]),
        (BINARY, ["-1="], [0, 1, -1], [0, 1, -1]),
        (BINARY, ["good=pos", "bad=NEG"], ["Good", "bad", "negative"], [1, 0, 0]),
        (BINARY, ["1=NEGATIVE", "0=POSITIVE"], [1, 0], [0, 1]),
        (BINARY, ["unsure="], ["pos", "unsure"], [1, -1]),
        (BINARY, ["n/a="], ["0", "1", "n/a"], [0, 1, -1]),
        (ABC, ["ids"], [1, 2], [1, 2]),
        (STARS, ["ids"], [1, 2], [1, 2]),
        (STARS, ["1=1 star", "2=2 stars"], [1, 2], [0, 1]),
        (("Yes", "yes"), ["y=yes", "Y!=Yes"], ["y", "Y!"], [1, 0]),
    ],
)
def test_the_label_map_wins(
    labels: tuple[str, ...], maps: list[str], values: list[Any], expected: list[int]
) -> None:
    assert indices(values, labels, *maps) == expected


@pytest.mark.parametrize(
    ("maps", "values"),
    [
        pytest.param(["4..5=POSITIVE"], [1, 4, 5], id="the rest may be ids, or stars"),
        pytest.param(["2=POSITIVE"], [1, 2], id="one is not the id 1 where two is mapped"),
        pytest.param(["good=POSITIVE", "bad=NEGATIVE"], [1, 2, 3], id="nothing mapped occurs"),
    ],
)
def test_numbers_beside_mapped_ones_are_no_ids(maps: list[str], values: list[Any]) -> None:
    assert meaning_of(values, BINARY, *maps) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("good", "is not GIVEN=LABEL"),
        ("=POSITIVE", "is not GIVEN=LABEL"),
        ("5..1=POSITIVE", "is no range"),
        ("1..2=NEGATIVE 2..3=POSITIVE", "of 2 both"),
    ],
)
def test_a_label_map_that_cannot_be_meant_is_wrong_usage(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_label_map([text])


def test_a_label_that_the_model_does_not_have_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="the model's labels are NEGATIVE, POSITIVE"):
        LabelNames(BINARY, {"x": "NEUTRAL"})


@pytest.mark.parametrize(
    ("names", "values", "expected"),
    [
        (["positive", "negative"], [0, 1, 0], [1, 0, 1]),
        (["neg", "pos"], [0, 1, -1, None], [0, 1, -1, -1]),
        (["0", "1"], [0, 1], [0, 1]),
        (["pos", "neg"], ["0", "1.0"], [1, 0]),
    ],
)
def test_names_that_a_file_gives_its_numbers_win(
    names: list[str], values: list[Any], expected: list[int]
) -> None:
    assert indices(values, BINARY, names=names) == expected


def test_names_of_a_file_that_the_model_does_not_have_are_refused_and_can_be_mapped() -> None:
    assert meaning_of([0, 1], BINARY, names=["bad", "good"]) is None
    assert indices([0, 1], BINARY, "bad=NEGATIVE", "good=POSITIVE", names=["bad", "good"]) == [0, 1]
    assert indices([0, 1], BINARY, "0=POSITIVE", "1=NEGATIVE", names=["pos", "neg"]) == [1, 0]
    assert meaning_of([0, 7], BINARY, names=["neg", "pos"]) is not None  # 7 is unknown, and said


def test_what_the_values_mean_is_kept_with_their_spelling() -> None:
    meaning = meaning_of(["1", "0", "meh", "1"], BINARY)
    assert meaning is not None
    assert meaning.values == {"0": "NEGATIVE", "1": "POSITIVE"}
    assert (meaning.labelled, meaning.unknown) == (3, {"meh": 1})
    named = meaning_of([0], BINARY, names=["pos", "neg"])
    assert named is not None
    assert named.values == {"0 (pos)": "POSITIVE"}


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from(["0", "1", "2", "-1", "pos", "Negative", "meh", "", None]), max_size=12))
def test_no_value_ever_means_a_label_that_nobody_said(values: list[str | None]) -> None:
    meaning = meaning_of(values, BINARY)
    given_values = {value for value in values if value}
    if meaning is None:
        assert given_values - {"pos", "Negative"}
        return
    found = GivenLabels(LabelNames(BINARY, {}), meaning.reading).indices(values, len(values)).tolist()
    for value, index in zip(values, found, strict=True):
        if value in {"pos", "Negative"}:
            assert index == (value == "pos")
        elif value in {"0", "1"} and not given_values & {"pos", "Negative"}:
            assert index == int(value)
            assert not given_values & {"2", "-1"}
        else:
            assert index == (UNKNOWN_LABEL if value else UNLABELLED)
    assert meaning.labelled == sum(index >= 0 for index in found)


SURVEYS: dict[str, Callable[[], Survey]] = {
    "one label": lambda: LabelValues(LabelNames(BINARY, {"3": ""})),
    "class names": lambda: LabelValues(LabelNames(BINARY, {}), ["negative", "other"]),
    "several labels": lambda: SetsSurvey(LabelNames(BINARY, {}, one_of_them=False)),
    "a number": lambda: NumbersSurvey({"good": 4.0}),
}
CELLS = st.sampled_from(
    [None, "", "1", " 1", "1.0", "neg", "NEG", "POSITIVE", "meh", "good", "pos;neg", '["pos", 1]', "_1"]
) | st.sampled_from([1, 0, True, False, 1.0, -0.0, 0.0, 2.5, float("nan"), ["pos", 1], [], ("neg",)])


@pytest.mark.parametrize("kind", SURVEYS)
@settings(max_examples=200, deadline=None)
@given(st.lists(CELLS, max_size=12) | st.lists(st.sampled_from([None, 0, 1, 2]), max_size=12))
def test_values_that_are_counted_together_count_as_one_by_one(kind: str, values: list[Any]) -> None:
    together, singly = SURVEYS[kind](), SURVEYS[kind]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("batchscore.model.numbers._MOST", 2)
        for found in (together, singly):
            if isinstance(found, LabelValues):
                found._most = 3
        together.update(values)
        for value in values:
            singly.count([(value, 1)])
    assert told(together) == told(singly)


def told(found: Survey) -> list[Any]:
    """All that a survey says."""
    meanings = [found.meaning(counts_from_0=each) for each in (False, True)]
    return [*meanings, found.counts_from_0, found.problem("stars") if meanings[0] is None else ""]
