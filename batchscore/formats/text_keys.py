"""By what texts are known again: whatever their case, white space and ``<br />``."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchscore.records import Text


def text_key(text: Text) -> bytes:
    """A hash that is the same for equal texts, or pairs of texts, only; 16 bytes.

    >>> text_key("Good.<br />Not great.") == text_key("good.  not great.")
    True
    """
    texts = (text,) if isinstance(text, str) else text
    plain = "\n".join(" ".join(each.replace("<br />", " ").split()).casefold() for each in texts)
    return hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=16).digest()
