"""jobq, broken where it does not trust its file: checksums, heads, salvage, repairs, the doctor.

As in `breaks_of_jobs`.
"""

from typing import Final

from tests.torture.breaks.broken import DURABLE, Break, Cut

_DOCTOR_CODE: Final = "repo/lmdb/upkeep/doctor.py"
_FILES: Final = "repo/lmdb/files.py"
_FINDING: Final = "repo/lmdb/upkeep/finding.py"
_HEADS: Final = "repo/lmdb/upkeep/heads.py"
_OPENING: Final = "repo/lmdb/opening.py"
_PAGES: Final = "repo/lmdb/upkeep/pages.py"
_RECORDS: Final = "repo/lmdb/records.py"
_SALVAGE_CODE: Final = "repo/lmdb/upkeep/salvage.py"

_DAMAGE: Final = "torture/damage/test_damage.py::test"
_DOCTOR: Final = "torture/damage/test_doctor.py::test"
_REPAIR: Final = "torture/damage/test_repair.py::test"
_SALVAGE: Final = "torture/damage/test_salvage.py::test"
_SORTS: Final = "repo/lmdb/test_records.py::test"
_ANY_BIT: Final = f"{_SORTS}_any_single_flipped_bit_is_noticed"
_TOO_MUCH: Final = (
    f"{_DAMAGE}_a_head_that_claims_more_than_can_be_mapped_while_the_queue_is_open_is_damage"
)
_NOT_WRITTEN: Final = f"{_REPAIR}_a_damaged_tree_is_reported_and_nothing_is_written"

CHECKSUMS: Final = {
    "the checksum of a state is not verified": Break(
        (
            Cut(
                _RECORDS,
                "len(record) != _STATE_SIZE or crc(record, crc(job_id, IS_STATE)) != INTACT:",
                "len(record) != _STATE_SIZE:",
            ),
        ),
        (_ANY_BIT, f"{_DAMAGE}_no_damaged_record_is_read_wrong"),
        DURABLE,
    ),
    "the checksum of an agenda record is not verified": Break(
        (Cut(_RECORDS, 'opened(IS_PLACE, key, record, "an agenda record")', "record[:-CRC]"),),
        (_ANY_BIT,),
        DURABLE,
    ),
    "the checksum of a topic is not verified": Break(
        (
            Cut(
                _RECORDS,
                "<= _TOPIC_SIZE + CRC or crc32(record, crc32(key, IS_TOPIC)) != INTACT:",
                "<= _TOPIC_SIZE + CRC:",
            ),
        ),
        (_ANY_BIT, f"{_DAMAGE}_no_damaged_record_is_read_wrong"),
        DURABLE,
    ),
    "the checksums of indexes, topics and notes do not say whose records they are": Break(
        (
            Cut(_RECORDS, "crc32(data, crc32(key, kind))", "crc32(data, kind)"),
            Cut(_RECORDS, "crc32(record, crc32(key, kind))", "crc32(record, kind)"),
            Cut(_RECORDS, "crc32(record, crc32(key, IS_PLACE))", "crc32(record, IS_PLACE)"),
            Cut(_RECORDS, "crc32(record, crc32(key, IS_TOPIC))", "crc32(record, IS_TOPIC)"),
        ),
        (
            f"{_SORTS}_a_record_under_another_key_is_noticed",
            f"{_SORTS}_any_single_flipped_bit_of_its_key_is_noticed",
        ),
        DURABLE,
    ),
    "a checksum does not say of which kind a record is": Break(
        (Cut(_RECORDS, "IS_NOTE: Final = 6", "IS_NOTE: Final = 5"),),
        (f"{_SORTS}_a_record_of_one_sort_is_not_read_as_another",),
        DURABLE,
    ),
}

OPENING: Final = {
    "of two heads that contradict one another the one with the larger number is taken": Break(
        (
            Cut(
                _FILES,
                "if wrong := contradiction([meta.told for meta in metas]):",
                'if wrong := "":',
            ),
        ),
        (f"{_DOCTOR}_heads_that_contradict_one_another_are_known",),
        DURABLE,
    ),
    "a file that was cut short is mapped": Break(
        (Cut(_FILES, "        if size >= needed:\n", "        if True:\n"),),
        (f"{_DAMAGE}_a_file_that_was_cut_short_is_noticed_at_open_wherever_it_was_cut",),
        DURABLE,
    ),
    "another format is taken": Break(
        (Cut(_OPENING, "        if found != FORMAT:\n", "        if False:\n"),),
        ("repo/lmdb/test_opening.py::test_another_format_number_is_refused_and_named",),
        DURABLE,
    ),
    "a head that claims more than can be mapped is no damage": Break(
        (
            Cut(
                "repo/lmdb/openfile.py",
                "                files.refuse_too_large_claim(self.path)\n",
                "                pass\n",
            ),
        ),
        (_TOO_MUCH,),
        DURABLE,
    ),
    "a database that is gone is no damage": Break(
        (Cut("repo/lmdb/faults.py", "    lmdb.NotFoundError,", "    # lmdb.NotFoundError,"),),
        (f"{_DAMAGE}_databases_that_are_gone_while_the_queue_is_open_are_damage",),
        DURABLE,
    ),
    "a damaged job stops its topic": Break(
        (
            Cut(
                "repo/operations/damage.py",
                "    except StoreCorrupt:\n        found = tried(tx.jobs.both, ids)\n",
                "    except StoreCorrupt:\n        raise\n",
            ),
        ),
        ("repo/lmdb/test_unreadable.py::test_the_jobs_behind_it_are_handed_out",),
        DURABLE,
    ),
}

SALVAGE: Final = {
    "a salvage does not doubt the heads": Break(
        (
            Cut(
                _HEADS,
                "    if pages.disagreement:\n",
                '    return ""\n    if pages.disagreement:\n',
            ),
        ),
        (
            f"{_SALVAGE}_what_may_not_be_the_last_commit_is_said_to_be_unsure",
            f"{_SALVAGE}_a_meta_page_that_leads_to_an_old_list_of_databases_is_not_believed",
        ),
        DURABLE,
    ),
    "a salvage believes a state that the indexes contradict": Break(
        (
            Cut(
                _FINDING,
                "        if contradicted is not None:\n            return contradicted\n",
                "        if contradicted is not None:\n            return False\n",
            ),
        ),
        (f"{_SALVAGE}_an_old_page_of_states_contradicts_the_index",),
        DURABLE,
    ),
    "a salvage does not compare topics with their counts": Break(
        (
            Cut(
                _FINDING,
                "wrong = self.others.wrong_counts(counted, unknown)",
                "wrong: set[int] = set()",
            ),
        ),
        (f"{_SALVAGE}_names_from_another_queue_are_not_believed",),
        DURABLE,
    ),
    "a salvage does not say of what it is unsure": Break(
        (Cut(_SALVAGE_CODE, "unsure = len(self._found.unsure)", "unsure = 0"),),
        (
            f"{_SALVAGE}_with_states_and_agenda_destroyed_every_job_that_has_moved_is_unsure",
            f"{_SALVAGE}_what_is_saved_is_right_and_most_of_it_is_saved",
        ),
        DURABLE,
    ),
    "a salvage does not say what is lost": Break(
        (
            Cut(
                _SALVAGE_CODE,
                "lost = max(len(self._found.gone), self._found.expected - len(self._ids))",
                "lost = 0",
            ),
        ),
        (
            f"{_SALVAGE}_a_damaged_payload_costs_the_job_and_no_other",
            f"{_SALVAGE}_jobs_of_another_queue_make_nobody_forget_those_that_are_lost",
        ),
        DURABLE,
    ),
    "a salvage does not look for leaves that nothing leads to": Break(
        (
            Cut(
                _FINDING,
                "lost = [] if all(whole.values()) else self._file.lost()",
                "lost: list[int] = []",
            ),
        ),
        (f"{_SALVAGE}_with_the_root_of_the_jobs_destroyed_every_job_is_found_on_its_leaf",),
        DURABLE,
    ),
    "a salvage takes free pages for lost ones": Break(
        (
            Cut(
                _PAGES,
                "if number in self.visited or number in free:",
                "if number in self.visited:",
            ),
        ),
        (f"{_SALVAGE}_what_was_forgotten_long_ago_does_not_come_back_with_lost_leaves",),
        DURABLE,
    ),
    "a salvage takes another format": Break(
        (Cut(_FINDING, "            if found != FORMAT:\n", "            if False:\n"),),
        (f"{_SALVAGE}_another_format_is_refused",),
        DURABLE,
    ),
}

REPAIRS: Final = {
    "a repair does not look at the trees of states and notes": Break(
        (
            Cut(
                "repo/lmdb/jobs.py", "for tree in (db.jobs, db.states):", "for tree in (db.jobs,):"
            ),
            Cut(
                "repo/lmdb/jobs.py",
                "        refuse_damaged_tree(self._access, db.notes, bytes)  #",
                "        #",
            ),
        ),
        (
            f"{_NOT_WRITTEN}[states-lose_a_record]",
            f"{_NOT_WRITTEN}[notes-lose_a_record]",
            f"{_NOT_WRITTEN}[notes-swap_leaves]",
        ),
        DURABLE,
    ),
    "a repair gives the pages of damaged indexes away": Break(
        (
            Cut(
                "repo/lmdb/clearing.py",
                "        refuse_damaged_tree(access, db, read)\n",
                "        pass\n",
            ),
        ),
        (f"{_NOT_WRITTEN}[queue-lose_a_record]", f"{_NOT_WRITTEN}[agenda-swap_leaves]"),
        DURABLE,
    ),
    "a repair does not say what it has left": Break(
        (
            Cut(
                "repo/transactional.py",
                "        left = self._read(lambda tx: check(tx, self._damage))\n",
                "        left = replace(found, problems=())\n",
            ),
        ),
        (
            f"{_REPAIR}_a_repair_counts_a_damaged_job_out",
            f"{_REPAIR}_a_repair_that_was_led_over_other_pages_says_so",
        ),
    ),
}

DOCTOR: Final = {
    "the doctor finds nothing": Break(
        (
            Cut(
                _DOCTOR_CODE,
                "            tuple(self._problems),\n",
                "            (),\n",
            ),
        ),
        (
            f"{_DOCTOR}_a_damaged_record_is_found",
            f"{_DOCTOR}_a_damaged_page_is_found_and_what_can_be_saved_is_said",
        ),
        DURABLE,
    ),
    "the doctor does not compare what the heads lead to": Break(
        (
            Cut(
                _DOCTOR_CODE,
                'problems += [f"the last commit may be missing: {doubt}"] if doubt else []',
                "problems += []",
            ),
        ),
        (f"{_DOCTOR}_heads_that_contradict_one_another_are_known[2]",),
        DURABLE,
    ),
}

ALL: Final = {**CHECKSUMS, **OPENING, **SALVAGE, **REPAIRS, **DOCTOR}
