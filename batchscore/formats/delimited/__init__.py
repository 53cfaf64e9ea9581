r"""Read real-world CSV: every cell as its original text, every record with its exact bytes and position.

Pure: a binary stream in, records out. The standard library's ``csv.reader`` (strict) does the parsing, block by block,
at C speed; where it fails, our own scanner examines the record in question and decides how far the damage extends. No
decision depends on where a block ends.

The rules:

- Records follow RFC 4180. A *physical line* ends with ``\n`` and the carriage returns before it (``\r\n``, ``\r\r\n``); in a
  file whose header ends with a lone ``\r``, that too. Nothing else ends one (not ``\x0b``, ``\x85`` or ``\u2028``, at which
  ``str.splitlines`` splits): elsewhere a lone ``\r`` is text. Line ends inside quotes are kept unchanged.
- Quotes inside an unquoted field (``the "best" film``) are text as long as they pair up within it; an unpaired one
  (``5" disk``, or ``1"Fine, really",1``, which lacks a delimiter) makes the row a reject: its delimiters may be text.
  Text after a closing quote (``"abc"def``) is an error.
- Ragged, NUL-bearing, undecodable and oversized rows become :class:`Rejected`; their neighbours are unaffected.
- An empty physical line outside quotes is no record: its bytes belong to nothing, but lines and offsets count it.
- Apart from those lines, and from the cut raw bytes of an oversized reject, every byte after the header belongs to
  exactly one record or reject: their ``raw`` joined is the rest of the file.

After a quoting error it is unknown whether the next line is inside or outside quotes. Line after line is rejected, each by
itself, since the number of rows is unknown, until one is *credible* as the start of a record (:meth:`_Parser._resume`): it
parses well, and so do the next ones, or the quotes ahead agree. An unclosed quote then costs only its own line; a stray
quote in a review of many lines costs the lines of that review, and never yields a "row" from the middle of its prose.

Work is linear in the bytes. Within a window ``csv.reader`` sees each quoted line once; a window with too little to decide
doubles; and two scans that start in damage hardly overlap: a line that opens a quote ends any scan that reaches it within
quotes.
"""

from __future__ import annotations

from batchscore.formats.delimited.dialect import (
    Dialect,
    Limits,
    Position,
    detect_encoding,
    encoding_hint,
    quote_byte,
)
from batchscore.formats.delimited.fields import append_fields, encode_fields, parse_record
from batchscore.formats.delimited.records import (
    Record,
    Rejected,
    UncertainError,
    count_records,
    next_position,
    read_records,
)
from batchscore.formats.delimited.sniffing import (
    DELIMITERS,
    MOST_HEADER_BYTES,
    RARE_DELIMITERS,
    Given,
    likely_delimiters,
    pass_records,
    peek,
    read_header,
    sniff,
)
from batchscore.formats.delimited.windows import KEPT_BYTES

__all__ = [
    "DELIMITERS",
    "KEPT_BYTES",
    "MOST_HEADER_BYTES",
    "RARE_DELIMITERS",
    "Dialect",
    "Given",
    "Limits",
    "Position",
    "Record",
    "Rejected",
    "UncertainError",
    "append_fields",
    "count_records",
    "detect_encoding",
    "encode_fields",
    "encoding_hint",
    "likely_delimiters",
    "next_position",
    "parse_record",
    "pass_records",
    "peek",
    "quote_byte",
    "read_header",
    "read_records",
    "sniff",
]
