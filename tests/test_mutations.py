"""Each guard against a silent wrong answer is taken out of a copy of the package, and a test that is named here must fail.

A guard whose removal nobody notices is none. The tests run in children forked from a server that has imported the large
libraries, but nothing of ours: ``python -m pytest tests/test_mutations.py`` takes a minute.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "torch",
        "transformers.models.bert.modeling_bert",
        "transformers.models.bert.tokenization_bert",
        "datasets",
        "pandas",
        "pyarrow.parquet",
        "sklearn.metrics",
        "hypothesis",
    ]
)


class Mutation(NamedTuple):
    """A change to one file that takes a guard out, and a test that sees it."""

    file: str
    guard: str
    instead: str
    test: str


MUTATIONS = {
    "the only column left is the text": Mutation(
        "formats/column_choice.py",
        "    if text is None:\n        raise",
        '    strings = [c.name for c in layout.columns if c.kind == "string"]\n'
        "    text = text or (strings[0] if len(strings) == 1 else None)\n"
        "    if text is None:\n        raise",
        "test_planning.py::test_columns_that_cannot_be_told_are_an_error_that_lists_them",
    ),
    "an object is passed over for another column": Mutation(
        "formats/column_choice.py",
        "column.kind not in _COUNTED)",
        "column.kind in _TEXT_KINDS)",
        "test_planning.py::test_columns_that_cannot_be_told_are_an_error_that_lists_them",
    ),
    "a rare delimiter is not looked for": Mutation(
        "formats/delimited/sniffing.py",
        'RARE_DELIMITERS = ("^", "~", "#", "::", "\\x1f", "¦")',
        'RARE_DELIMITERS = ("@",)',
        "test_delimited.py::test_rare_delimiters_are_found_where_they_divide_every_row",
    ),
    "whatever is no table is read": Mutation(
        "formats/foreign.py",
        "return next((kind for kind in _KINDS if kind.start.match(head)), None)",
        "return None",
        "test_foreign.py::test_it_is_recognised_within_a_compressed_file_too",
    ),
    "the name is believed, whatever the bytes say": Mutation(
        "formats/identification.py",
        'if found not in {"", wanted}:',
        "if False:",
        "test_foreign.py::test_a_format_that_is_not_what_the_name_says_is_refused",
    ),
    "a second line of a header is a row": Mutation(
        "formats/headers.py",
        "if holds and len(fields) == n_fields:",
        "if False:",
        "test_headers.py::test_what_stands_around_a_header_is_refused_with_the_option",
    ),
    "a header is taken for a row under --no-header": Mutation(
        "formats/csv.py",
        "    if any(name_key(cell) in TEXT for cell in first.fields) and all(map(is_identifier, first.fields)):",
        "    if False:",
        "test_headers.py::test_no_header_is_refused_where_it_cannot_be_meant",
    ),
    "files of a table with a log are read": Mutation(
        "formats/inputs.py",
        "    _refuse_tables(paths)\n",
        "",
        "test_foreign.py::test_files_of_a_table_with_a_log_are_refused",
    ),
    "a header in the middle is a row": Mutation(
        "formats/csv.py",
        "elif is_repeated(record):",
        "elif False:",
        "test_headers.py::test_a_header_that_comes_again_is_a_reject",
    ),
    "another header in the middle is a row": Mutation(
        "formats/csv.py",
        "        if headers.has(cells):",
        "        if False:",
        "test_headers.py::test_another_header_in_the_middle_ends_the_file",
    ),
    "shifted cells are believed": Mutation(
        "formats/delimited/records.py",
        "odd = has_stray or strays > 0, n_fields if strays % 2 and odd < 0 else odd",
        "odd = has_stray or strays > 0, odd",
        "test_delimited.py::test_a_quote_without_a_partner_in_an_unquoted_field_costs_its_row",
    ),
    "rows within a quoted cell are its text": Mutation(
        "formats/delimited/records.py",
        "return any(numeric) or (",
        "return False and (",
        "test_delimited.py::test_a_record_whose_lines_all_look_like_rows_has_swallowed_them",
    ),
    "damage goes on where rows read well": Mutation(
        "formats/delimited/records.py",
        "        if begins_a_run is not False:",
        "        if False:",
        "test_delimited.py::test_of_an_unquoted_table_a_quote_at_the_start_of_a_field_costs_its_line",
    ),
    "numbers that are no ids are label values": Mutation(
        "model/labels.py",
        "        if not set(self._numbers) <= set(self._names.by_id):\n            return None\n",
        "",
        "test_labels.py::test_what_cannot_be_told_is_refused",
    ),
    "ids may count from one": Mutation(
        "model/labels.py",
        "return self._match(IDS, self._names.by_id) if from_0 else None",
        "return self._match(IDS, self._names.by_id)",
        "test_labels.py::test_what_cannot_be_told_is_refused",
    ),
    "a star is an id": Mutation(
        "model/labels.py",
        "ids if self.are_ids or (is_free and not self.has_own_numbers) else {}",
        "ids if self.are_ids or is_free else {}",
        "test_labels.py::test_what_cannot_be_told_is_refused",
    ),
    "mapped numbers leave the others ids": Mutation(
        "model/labels.py",
        "is_free = all(ids.get(key) == index for key, index in mapped.items())",
        "is_free = True",
        "test_labels.py::test_numbers_beside_mapped_ones_are_no_ids",
    ),
    "a file's own names for its labels are not read": Mutation(
        "formats/columnar.py",
        'return {"class_names": found} if found else {}',
        "return {}",
        "test_class_names.py",
    ),
    "zeros between gzip members are passed over": Mutation(
        "formats/unpacking.py",
        "            self._refuse_all_but_zeros()\n",
        "            self._ahead = b''\n",
        "test_unpacking.py::test_what_stands_behind_a_stream_is_a_stream_or_bad_data",
    ),
    "what begins no stream is passed over": Mutation(
        "formats/unpacking.py",
        "if self._ahead and not is_padding else None",
        'if self._ahead.startswith((b"\\x1f\\x8b", b"BZh")) else None',
        "test_unpacking.py::test_whatever_byte_is_flipped_the_tool_agrees",
    ),
    "times of INT96 wrap": Mutation(
        "formats/exact.py",
        "self._fits[unit] &= bool((_instants(values, unit) // per_second == seconds).all())",
        "self._fits[unit] &= True",
        "test_exact.py::test_times_of_all_years_are_python_s_in_every_format",
    ),
    "nanoseconds of INT96 are cut": Mutation(
        "formats/exact.py",
        'self._needs_nanoseconds |= bool((values["nanoseconds"] % 1000).any())',
        "self._needs_nanoseconds |= False",
        "test_exact.py::test_times_that_no_unit_holds_are_refused_with_their_column",
    ),
    "types that Arrow has no word for are forgotten": Mutation(
        "formats/parquet.py",
        "            restore_annotations(out, [nodes[place] for place in output.held])",
        "            pass",
        "test_exact.py::test_parquet_keeps_types_that_arrow_has_no_word_for",
    ),
    "two orders of a dictionary become one": Mutation(
        "formats/arrow_values.py",
        "if has_ordered and not all(",
        "if False and not all(",
        "test_exact.py::test_two_orders_are_not_made_one",
    ),
    "what the output cannot hold is found after scoring": Mutation(
        "runs/surveying.py",
        "        refuse_unwritable(source, surveyed.layout, rows, self._outputs, self._settings.output_format)\n",
        "",
        "test_writable.py::test_a_nul_in_parquet_is_refused_for_csv_with_its_place",
    ),
    "rows that are read again are believed": Mutation(
        "runs/part_reading.py",
        "if rows.start != part.start or digest_of(rows) != part.digest:",
        "if rows.start != part.start or rows.rows_in != part.rows:",
        "test_unchanged.py::test_a_file_that_changed_between_plan_and_scoring_is_noticed_by_its_rows",
    ),
    "what was hashed need not be what is planned": Mutation(
        "runs/surveying.py",
        "        file.assert_read(hashed)  # so what was planned is what was hashed\n",
        "",
        "test_unchanged.py::test_a_file_that_changed_between_hash_and_plan_is_noticed",
    ),
    "a time of change that was set back is believed": Mutation(
        "formats/inputs.py",
        "facts.st_mtime_ns, facts.st_ctime_ns)",
        "facts.st_mtime_ns, 0)",
        "test_unchanged.py::test_a_file_that_changed_after_it_was_hashed_is_noticed_although_its_time_was_set_back",
    ),
    "a clock that stands still is believed": Mutation(
        "formats/inputs.py",
        "return self.identity.changed <= self.hashed.begun - _CLOCK_TICK_NS",
        "return True",
        "test_unchanged.py::test_a_change_within_a_tick_of_the_clock_is_noticed_later_too",
    ),
    "a link is taken for a folder of ours": Mutation(
        "system/own_paths.py",
        "below = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)",
        "below = os.open(name, _FOLDER, dir_fd=descriptor)",
        "test_own_paths.py::test_no_step_goes_through_a_link_to_a_folder[write]",
    ),
    "a link is taken for a file of ours": Mutation(
        "system/own_paths.py",
        "_FILE = os.O_NOFOLLOW | os.O_NONBLOCK",
        "_FILE = os.O_NONBLOCK",
        "test_own_paths.py::test_no_file_is_opened_through_anything_else_and_nothing_is_waited_for[link]",
    ),
    "ids are spellings": Mutation(
        "runs/matching_ids.py",
        "        found[missing] = np.where(places == AMBIGUOUS, UNCLEAR, places) if self._drops_zeros else places\n",
        "",
        "test_comparison.py::test_ids_are_matched_as_numbers_where_they_are_numbers",
    ),
    "padding on the right is taken, whatever it does": Mutation(
        "model/probing.py",
        "        if difference.is_rounding:",
        "        if True:",
        "test_probing.py::test_answers_are_those_of_plain_transformers[xlnet]",
    ),
    "texts of other lengths are company": Mutation(
        "model/batching.py",
        "return int((sizes[:rows] >= shortest).sum())",
        "return rows",
        "test_probing.py::test_answers_are_those_of_plain_transformers[fnet]",
    ),
    "a model that has changed is shared": Mutation(
        "model/probing.py",
        "is_fresh = has_dynamic_rope or any(answer.changed_model for answer in answers)",
        "is_fresh = has_dynamic_rope",
        "test_probing.py::test_workers_share_a_model_that_keeps_what_it_met",
    ),
    "a tokenizer that is not there is made up": Mutation(
        "model/tokenization.py",
        "            refuse_no_words(self._tokenizer, bundle)\n",
        "",
        "test_tokenization.py::test_a_folder_without_the_files_of_a_tokenizer_is_a_model_error[gpt2]",
    ),
    "an address is a folder's name": Mutation(
        "addresses.py",
        "    if (found := _ADDRESS.fullmatch(text)) is not None:",
        "    if (found := _ADDRESS.fullmatch(text)) is not None and False:",
        "test_messages.py::test_an_address_is_never_taken_for_a_folders_name",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)
def test_a_guard_that_is_taken_out_is_missed(mutation: Mutation, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "batchscore", tmp_path / "batchscore")  # with what was compiled of it
    path = tmp_path / "batchscore" / mutation.file
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
        compiled.unlink()
    text = path.read_text(encoding="utf-8")
    assert text.count(mutation.guard) == 1, "the guard has moved; name it anew"
    path.write_text(text.replace(mutation.guard, mutation.instead), encoding="utf-8")
    said = tmp_path / "said.txt"
    child = CONTEXT.Process(target=run_test, args=(tmp_path, f"{ROOT}/tests/{mutation.test}", said))
    child.start()
    child.join()
    assert child.exitcode == 1, said.read_text()  # 1: tests ran, and one failed
    assert " failed" in said.read_text().splitlines()[-1]


def run_test(package: Path, test: str, said: Path) -> None:
    """Run a test in this process with the package that lies in the folder ``package``."""
    with said.open("wb") as file:
        for standard in (1, 2):
            os.dup2(file.fileno(), standard)
    sys.stdout, sys.stderr = (os.fdopen(standard, "w", closefd=False) for standard in (1, 2))
    os.chdir(ROOT)
    os.environ["PYTHONPATH"] = str(package)
    sys.path.insert(0, str(package))
    import batchscore

    assert batchscore.__file__ == str(package / "batchscore" / "__init__.py")
    code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", test])
    sys.stdout.flush()
    os._exit(code)
