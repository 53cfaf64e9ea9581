"""What lies there under a table's name and is none is said so, before anything is scored."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from flow import flow
from pyarrow import feather

from batchscore.errors import BatchscoreError, DataError
from batchscore.formats.foreign import recognised
from batchscore.formats.identification import identify
from batchscore.formats.inputs import find_files


def _bytes(write: Callable[[io.BytesIO], object]) -> bytes:
    out = io.BytesIO()
    write(out)
    return out.getvalue()


def _word(out: io.BytesIO) -> None:
    with zipfile.ZipFile(out, "w") as archive:
        for name in ("[Content_Types].xml", "word/document.xml"):
            archive.writestr(name, "<x/>")


def _opendocument(out: io.BytesIO) -> None:
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")


def _tar(out: io.BytesIO) -> None:
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("reviews.csv"))


def _feather(out: io.BytesIO) -> None:
    feather.write_feather(pa.table({"text": ["a"]}), out, version=1)


def _numpy(out: io.BytesIO) -> None:
    np.save(out, np.zeros(3))


FOREIGN = {
    "LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1\n",
        "Git LFS pointer",
    ),
    "annex pointer": (b"/annex/objects/SHA256E-s1--ab.csv\n", "git-annex pointer"),
    "HTML": (b"<!DOCTYPE html><html><body>Sign in</body></html>\n", "an HTML page"),
    "HTML after spaces": (b"\n\n  <html lang='en'>\n", "an HTML page"),
    "HTML after a comment": (b"<!-- a proxy -->\n<HTML>\n", "an HTML page"),
    "S3's error": (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "error document"),
    "XML": (b'<?xml version="1.0"?><reviews/>', "an XML document"),
    "OpenDocument": (_bytes(_opendocument), "an OpenDocument file"),
    "Word": (_bytes(_word), "a Word or PowerPoint file"),
    "old workbook": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "an old Excel workbook"),
    "ZIP": (_bytes(lambda out: zipfile.ZipFile(out, "w").writestr("a.csv", "text\na\n")), "a ZIP archive"),
    "tar": (_bytes(_tar), "a tar archive"),
    "PDF": (b"%PDF-1.7\n", "a PDF"),
    "feather": (_bytes(_feather), "a Feather file of version 1"),
    "NumPy": (_bytes(_numpy), "a NumPy array"),
    "pickle": (b"\x80\x04\x95\x05\x00", "a pickle"),
    "xz": (b"\xfd7zXZ\x00\x00", "compressed by xz"),
    "7z": (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    "SQLite": (b"SQLite format 3\x00", "an SQLite database"),
    "Avro": (b"Obj\x01\x04", "an Avro file"),
    "picture": (b"\x89PNG\r\n\x1a\n", "a picture"),
    "program": (b"\x7fELF\x02", "a program"),
    "encrypted": (b"PARE\x15", "an encrypted Parquet file"),
    "traceback": (b"Traceback (most recent call last):\n", "a Python traceback"),
    "psql": (b'ERROR:  relation "reviews" does not exist\n', "an error message of a database"),
    "psql, no server": (b"psql: error: connection to server failed\n", "an error message of a database"),
    "mysql": (b"ERROR 1045 (28000): Access denied\n", "an error message of a database"),
    "curl": (b"curl: (6) Could not resolve host\n", "an error message of a command"),
    "mysql's frame": (b"+----+------+\n| id | text |\n+----+------+\n", "a table drawn with lines"),
}
NAMES = ("reviews.csv", "reviews.tsv", "reviews.parquet", "reviews.jsonl", "reviews.json", "reviews")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("content", "what"), FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_table_is_said_so_under_whatever_name(
    content: bytes, what: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=what) as caught:
        flow(tmp_path / "out", tmp_path / name)
    assert caught.value.exit_code == 65


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        (".gz", gzip.compress),
        (".bz2", bz2.compress),
        (".zst", lambda b: zstandard.ZstdCompressor().compress(b)),
    ],
)
def test_it_is_recognised_within_a_compressed_file_too(
    suffix: str, pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = tmp_path / f"reviews.csv{suffix}"
    path.write_bytes(pack(FOREIGN["HTML"][0]))
    with pytest.raises(DataError, match="an HTML page"):
        identify(path)
    path.write_bytes(FOREIGN["LFS pointer"][0])  # not compressed at all, which is not what is wrong with it
    with pytest.raises(DataError, match="Git LFS pointer"):
        identify(path)


@pytest.mark.parametrize(
    "head",
    [
        b"id,text\n1,a\n",
        b"ORCID,text\n1,a\n",
        b"MZ,text\n",
        b"PK,text\n",
        b"Rating;text\n",
        b"error,text\n1,a\n",
        b"text\n<br />A fine film\n",
        b"<id>,text\n",
        b"7z,text\n",
        b"\xef\xbb\xbftext,label\n",
        b'{"text": "<html>"}\n',
        b"",
    ],
)
def test_a_table_is_not_taken_for_something_else(head: bytes) -> None:
    assert recognised(head) is None


def test_a_real_database_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    with sqlite3.connect(path) as connection:
        connection.execute("create table reviews (text)")
    connection.close()
    with pytest.raises(DataError, match="an SQLite database"):
        identify(path)


PARQUET = _bytes(lambda out: pq.write_table(pa.table({"text": ["a"]}), out))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", PARQUET, "is Parquet, but its name says CSV. Rename it, or say --format parquet"),
        ("a.jsonl", PARQUET, "is Parquet, but its name says JSON Lines"),
        (
            "a.csv",
            b'{"text": "a"}\n',
            "is JSON Lines, but its name says CSV. Rename it, or say --format jsonl",
        ),
        ("a.csv", b'[{"text": "a"}]', "is a JSON array, but its name says CSV"),
        ("a.parquet", b'{"text": "a"}\n', "is JSON Lines, but its name says Parquet"),
        ("a.parquet", b"text\na\n", "is no Parquet file"),
        ("a.json", b'{\n  "text": "a"\n}\n', "spread over several lines"),
        ("a.jsonl", b'{"text": "a",\n "id": 1}\n', "spread over several lines"),
    ],
)
def test_a_format_that_is_not_what_the_name_says_is_refused(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        identify(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.json", b'[{"text": "a"}]', "json"),
        ("a.jsonl", b' \n[ {"text": "a"}]', "json"),
        ("a.json", b'{"text": "a"}\n{"text": "b"}\n', "jsonl"),
        ("a.json", b"\xef\xbb\xbf[]", "json"),
        ("a", b'[{"text": "a"}]', "json"),
        ("a.csv", b"", "csv"),
    ],
)
def test_of_json_the_bytes_tell_its_kind(name: str, content: bytes, found: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert identify(tmp_path / name).format == found


# ---------------------------------------------------------------------------------------------- folders with a log

TABLES = {
    "Delta": ("_delta_log/00000000000000000000.json", "a Delta table"),
    "Iceberg": ("metadata/v1.metadata.json", "an Iceberg table"),
    "Iceberg's hint": ("metadata/version-hint.text", "an Iceberg table"),
    "Hudi": (".hoodie/hoodie.properties", "a Hudi table"),
    "Hive": ("delete_delta_0000002_0000002_0000/bucket_00000", "a Hive table with transactions"),
    "Hive's inserts": ("delta_0000001_0000001_0000/000000_0", "a Hive table with transactions"),
    "Spark's stream": ("_spark_metadata/0", "the output of a Spark stream"),
}


@pytest.mark.parametrize(("mark", "what"), TABLES.values(), ids=TABLES)
@pytest.mark.parametrize(
    "argument", ["table", "table/data", "table/data/a.parquet", "table/data/*.parquet", "."]
)
def test_files_of_a_table_with_a_log_are_refused(
    mark: str, what: str, argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (f"table/{mark}", "table/data/a.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "table" / mark).write_text("{}", encoding="utf-8")
    (tmp_path / "table/data/a.parquet").write_bytes(PARQUET)
    monkeypatch.chdir(tmp_path)
    for text in (argument, str(tmp_path / argument)):
        with pytest.raises(BatchscoreError, match=what) as caught:
            find_files([text], None, tmp_path / "run")
        assert caught.value.exit_code in {65, 66}


def test_a_folder_beside_a_table_is_none(tmp_path: Path) -> None:
    (tmp_path / "other" / "_delta_log").mkdir(parents=True)
    (tmp_path / "plain" / "metadata").mkdir(parents=True)
    (tmp_path / "plain" / "a.parquet").write_bytes(PARQUET)
    assert len(find_files([str(tmp_path / "plain")], None, tmp_path / "run")) == 1


def test_json_about_a_folders_tables_is_not_scored(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(PARQUET)
    (tmp_path / "dataset_info.json").write_text(json.dumps({"features": {}}, indent=2), encoding="utf-8")
    (tmp_path / "b.json").write_text('[{"text": "b"}]', encoding="utf-8")
    assert [file.name for file in find_files([str(tmp_path)], None, tmp_path / "run")] == [
        "a.parquet",
        "b.json",
    ]
