"""Names by which the text, label and id columns are found.

Case and separators do not count: ``reviewBody``, ``review_body`` and ``Review Body`` are the same name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_JOINTS = re.compile(r"[ _.\-]+")
_IDENTIFIER = re.compile(r"[^\W\d][\w.\-]{0,39}")

TEXT = frozenset(
    {
        *("text", "review", "reviewtext", "reviewbody", "reviewcontent", "content", "body", "comment"),
        *("commenttext", "commentbody", "sentence", "message", "messagetext", "messagebody", "document"),
        *("documenttext", "fulltext", "tweet", "tweettext", "utterance", "feedback", "feedbacktext"),
        *("posttext", "bodytext", "textbody", "rawtext", "inputtext"),
    }
)
LESSER_TEXT = frozenset(
    {"description", "post", "texts", "reviews", "comments", "answer", "response", "opinion"}
)
"""Names of the text column if no column has a name in ``TEXT``."""
LABEL = frozenset({"label", "labels", "sentiment", "target", "class", "givenlabel"})
ID = frozenset({"id", "reviewid", "uuid", "rowid", "docid", "documentid", "key", "guid", "idx"})
_TEXTS = TEXT | LESSER_TEXT
_ANY = _TEXTS | LABEL | ID
_SHORT = 40


def name_key(name: str) -> str:
    """A column name without case and separators.

    >>> name_key("Review-Body"), name_key("reviewBody "), name_key("review_body")
    ('reviewbody', 'reviewbody', 'reviewbody')
    """
    return _JOINTS.sub("", name.strip()).casefold()


def is_known(name: str) -> bool:
    """Whether this is a known name of a text, label or id column."""
    return len(name) <= _SHORT and name_key(name) in _ANY


def is_identifier(name: str) -> bool:
    """Whether a name looks like an identifier, and not like a piece of text."""
    return _IDENTIFIER.fullmatch(name) is not None


class Headers:
    """Recognises rows that are headers: this file's repeated, another file's, or this one's in another order."""

    def __init__(self, header: Sequence[str], text_at: int) -> None:
        self._names = {name_key(name) for name in header}
        self._text_at = text_at

    def has(self, cells: Sequence[str]) -> bool:
        """Whether all cells are column names, or the text cell is a text's name and another cell a column name."""
        if not cells[0][:1].isalpha() and len(cells) > 1 and self._text_at:
            return False  # nearly all rows begin with a number
        if max(map(len, cells)) > _SHORT:
            return False
        if len(cells) > 1 and all(map(self._is_a_name, cells)):
            return True
        if name_key(cells[self._text_at]) not in _TEXTS:
            return False
        others = [cell for place, cell in enumerate(cells) if place != self._text_at]
        return all(map(is_identifier, others)) and any(map(self._is_a_name, others))

    def _is_a_name(self, cell: str) -> bool:
        return is_identifier(cell) and (name_key(cell) in self._names or name_key(cell) in _ANY)
