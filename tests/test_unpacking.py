"""Compressed files of several streams: whatever byte is damaged, the rows are those the tool gives, or it is bad data.

The judges are ``gzip``, ``bzip2`` and ``zstd`` themselves. What they only warn of (their warning goes to stderr) is bad
data here, since rows may be missing.
"""

from __future__ import annotations

import bz2
import gzip
import shutil
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import zstandard

from batchscore.errors import DataError
from batchscore.formats.identification import identify
from batchscore.formats.source import open_bytes, reading

PIECES = [b"id,text\n1,Good film\n", b"2,Bad film\n", b"3,Fine film\n"]
CONTENT = b"".join(PIECES)


class Tool(NamedTuple):
    """A compression: how it packs, and its tool."""

    pack: Callable[[bytes], bytes]
    command: str


TOOLS = {
    ".gz": Tool(lambda data: gzip.compress(data, mtime=0), "gzip"),
    ".bz2": Tool(bz2.compress, "bzip2"),
    ".zst": Tool(zstandard.ZstdCompressor(write_checksum=True).compress, "zstd"),
}


def unpacked(path: Path, data: bytes) -> bytes | None:
    """What we read, nothing where we refuse."""
    path.write_bytes(data)
    try:
        source = identify(path)
        with reading(source), open_bytes(source) as stream:
            return stream.read()
    except DataError:
        return None


def judged(command: str, data: bytes) -> bytes | None:
    """What the tool unpacks; nothing where it fails or warns."""
    done = subprocess.run([command, "-dc"], input=data, capture_output=True, check=False)
    return done.stdout if not done.returncode and not done.stderr else None


@pytest.fixture(params=TOOLS)
def end(request: pytest.FixtureRequest) -> str:
    if shutil.which(TOOLS[request.param].command) is None:
        pytest.skip(f"there is no {TOOLS[request.param].command} here")
    return str(request.param)


def test_whatever_byte_is_flipped_the_tool_agrees(end: str, tmp_path: Path) -> None:
    tool = TOOLS[end]
    data = b"".join(map(tool.pack, PIECES))
    refused = 0
    for at in range(len(data)):
        flipped = data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
        found = unpacked(tmp_path / f"a.csv{end}", flipped)
        assert found == judged(tool.command, flipped), f"byte {at}"
        refused += found is None
    assert refused > 0.7 * len(data)  # in gzip's header, ten bytes of each member, much means nothing


def test_wherever_a_file_is_cut_it_is_bad_data_unless_a_stream_ends_there(end: str, tmp_path: Path) -> None:
    tool = TOOLS[end]
    packed = list(map(tool.pack, PIECES))
    data = b"".join(packed)
    whole = {len(b"".join(packed[:k])): b"".join(PIECES[:k]) for k in range(1, 4)}
    for at in range(1, len(data) + 1):
        found = unpacked(tmp_path / f"a.csv{end}", data[:at])
        assert found == whole.get(at) == judged(tool.command, data[:at]), f"{at} bytes"


SKIPPABLE = b"\x50\x2a\x4d\x18\x05\x00\x00\x00hello"
"""A frame of zstd that is to be passed over."""
TAILS: dict[str, Callable[[Callable[[bytes], bytes]], bytes]] = {
    "nothing": lambda pack: b"",
    "an empty stream": lambda pack: pack(b""),
    "an empty stream and another": lambda pack: pack(b"") + pack(b"4,Last film\n"),
    "a zero": lambda pack: b"\0",
    "zeros": lambda pack: bytes(200_000),
    "zeros and a stream": lambda pack: bytes(37) + pack(b"4,Last film\n"),
    "zeros and a byte": lambda pack: bytes(70_000) + b"x",
    "a line end": lambda pack: b"\n",
    "garbage": lambda pack: b"garbage" * 20,
    "half a header": lambda pack: pack(b"4,Last film\n")[:2],
    "a header": lambda pack: pack(b"4,Last film\n")[:8],
    "the stream of another tool": lambda pack: (
        bz2.compress(b"x") if pack is not bz2.compress else gzip.compress(b"x")
    ),
    "a frame to be passed over": lambda pack: SKIPPABLE,
    "half of such a frame": lambda pack: SKIPPABLE[:-2],
}


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
def test_what_stands_behind_a_stream_is_a_stream_or_bad_data(
    end: str, tail: Callable[[Callable[[bytes], bytes]], bytes], tmp_path: Path
) -> None:
    tool = TOOLS[end]
    data = tool.pack(CONTENT) + tail(tool.pack)
    assert unpacked(tmp_path / f"a.csv{end}", data) == judged(tool.command, data)


def test_zeros_up_to_the_end_are_padding_of_gzip_alone(tmp_path: Path) -> None:
    assert unpacked(tmp_path / "a.csv.gz", gzip.compress(CONTENT) + bytes(512)) == CONTENT
    for end in (".bz2", ".zst"):
        assert unpacked(tmp_path / f"a.csv{end}", TOOLS[end].pack(CONTENT) + bytes(512)) is None


HEADERS: dict[str, bytes] = {
    "a name": b"\x08" + bytes(6) + b"name.csv\0",
    "a comment": b"\x10" + bytes(6) + b"made at night\0",
    "an extra field": b"\x04" + bytes(6) + b"\x03\x00abc",
    "a checksum": b"\x02" + bytes(6),
    "a wrong checksum": b"\x02" + bytes(6) + b"xx",
    "a reserved flag": b"\x80" + bytes(6),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_the_header_of_a_gzip_member_is_read_as_gzip_reads_it(kind: str, tmp_path: Path) -> None:
    if shutil.which("gzip") is None:
        pytest.skip("there is no gzip here")
    header = b"\x1f\x8b\x08" + HEADERS[kind]
    if kind == "a checksum":
        header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little")
    data = gzip.compress(PIECES[0]) + header + gzip.compress(PIECES[1], mtime=0)[10:]
    found = unpacked(tmp_path / "a.csv.gz", data)
    assert found == judged("gzip", data)
    assert (found is None) == (kind in {"a wrong checksum", "a reserved flag"})


@pytest.mark.parametrize("end", [".gz", ".bz2"])
def test_streams_longer_than_what_is_read_at_once_are_joined_without_a_seam(end: str, tmp_path: Path) -> None:
    """Boundaries of streams, of reads of the file and of reads of its content fall in all ways."""
    pieces = [(f"{k:07},".encode() * (1 + 37_777 * (k % 4))) for k in range(12)]
    data = b"".join(map(TOOLS[end].pack, pieces))
    assert unpacked(tmp_path / f"a.csv{end}", data) == b"".join(pieces)
