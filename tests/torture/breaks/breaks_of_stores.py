"""jobq, broken where stores commit, take back, lock, check what they read, and call who waits.

As in `breaks_of_jobs`.
"""

from typing import Final

from tests.torture.breaks.broken import DURABLE, EVERY, MEMORY, MIXED, Break, Cut

_ENVIRONMENT: Final = "repo/lmdb/environment.py"
_LIMITS: Final = "repo/operations/flow/limits.py"
_OPEN_FILE: Final = "repo/lmdb/openfile.py"
_OUTCOME: Final = "repo/lmdb/outcome.py"
_PLACES: Final = "repo/operations/places.py"
_RECORDS: Final = "repo/lmdb/records.py"
_TRANSACTIONS: Final = "repo/lmdb/transactions.py"
_VERBS: Final = "repo/transactional.py"

_STEPS: Final = "crash/test_steps.py::test_a_verb_killed_at_any_step_is_whole_or_absent"
_GROUP: Final = "crash/test_group.py::test"
_SHARED: Final = "repo/test_lmdb_groups.py::test"
_CALLS: Final = "repo/lmdb/test_calls.py::test"
_KILLS: Final = "torture/kills/test_kills.py::test"
_LOCKS: Final = "repo/lmdb/test_locks.py::test"
_WATCH_CODE: Final = "repo/watch.py"
_WATCH: Final = "repo/test_contract_watch.py::test"
_THREADS: Final = "repo/test_contract_threads.py::test"
_TAKEN_BACK: Final = (
    "repo/test_contract_batches.py::test_a_call_that_fails_in_the_middle_has_changed_nothing",
    "model/test_found.py::test_a_call_that_is_interrupted_at_work_has_changed_nothing",
)

COMMITS: Final = {
    "memory does not take back what a failed call has done": Break(
        (Cut("repo/memory/store.py", "self._undo.roll_back()", "self._undo.forget()"),),
        _TAKEN_BACK,
        MEMORY,
    ),
    "topics in memory are not taken back when their commit fails": Break(
        (Cut("repo/mixed/topics.py", "self._undo.roll_back()", "self._undo.forget()"),),
        _TAKEN_BACK,
        MIXED,
    ),
    "a transaction that failed is committed": Break(
        (
            Cut(
                _TRANSACTIONS,
                "txn.abort()\n            if not number or",
                "txn.commit()\n            if not number or",
            ),
        ),
        _TAKEN_BACK,
        DURABLE,
    ),
    "a verb returns before its commit, which comes with the next": Break(
        (
            Cut(
                _TRANSACTIONS,
                "            txn.commit()  # also",
                "            self.late = txn  # also",
            ),
            Cut(
                _TRANSACTIONS,
                "        self.topics = 0\n",
                "        self.topics = 0\n        self.late = None\n",
            ),
            Cut(
                _TRANSACTIONS,
                "                return self._file.open().begin(write=True)\n",
                "                if self.late is not None:\n"
                "                    self.late.commit()\n"
                "                return self._file.open().begin(write=True)\n",
            ),
        ),
        (f"{_STEPS}[enqueue]", f"{_STEPS}[done]"),
        DURABLE,
    ),
    "a batch is two commits": Break(
        (
            Cut(
                _VERBS,
                "        return self._write(lambda tx: add(tx, specs, self._retention), kind)\n",
                "        half = len(specs) // 2\n"
                "        return (self.enqueue(specs[:half]) if half else []) + self._write(\n"
                "            lambda tx: add(tx, specs[half:], self._retention), kind\n        )\n",
            ),
        ),
        (
            "repo/test_contract_caps.py::test_a_batch_comes_as_a_whole_or_not_at_all",
            f"{_STEPS}[enqueue_many]",
        ),
    ),
    "a repair is two commits": Break(
        (
            Cut(
                _VERBS,
                "        def operation(tx: Transaction) -> None:\n"
                "            tx.topics.clear()\n"
                "            rebuild(",
                "        self._write(lambda tx: tx.topics.clear(), TIMELESS)\n\n"
                "        def operation(tx: Transaction) -> None:\n"
                "            rebuild(",
            ),
        ),
        (f"{_STEPS}[repair]", f"{_STEPS}[repair, topics in memory]"),
        DURABLE,
    ),
    "what comes after done is a commit of its own": Break(
        (
            Cut(
                _VERBS,
                "return Settled(outcomes, follow_ids, [] if taking is None else taking(tx))\n",
                "return Settled(outcomes, follow_ids, [])\n",
            ),
            Cut(
                _VERBS,
                "        return self._write(\n            operation,\n            Kind(adds=adds)",
                "        it = self._write(\n            operation,\n            Kind(adds=adds)",
            ),
            Cut(
                _VERBS,
                "            lambda done: self._give_back(done.reserved),\n        )\n",
                "            lambda done: self._give_back(done.reserved),\n        )\n"
                "        more = self.reserve(reserve) if reserve else []\n"
                "        return it._replace(reserved=more)\n",
            ),
        ),
        (f"{_STEPS}[settle and reserve]",),
    ),
    "one call that fails takes along all that share its commit": Break(
        (
            Cut(
                _TRANSACTIONS,
                "                self._run_alone(pending, rings)\n",
                "                pending.finish(None, translated(error, self._file.path))\n",
            ),
        ),
        (
            f"{_SHARED}_one_that_fails_does_not_touch_the_others_of_its_group",
            f"{_GROUP}_an_operation_that_fails_takes_nobody_along",
        ),
        DURABLE,
    ),
    "callers that share a commit get one another's answers": Break(
        (
            Cut(
                _TRANSACTIONS,
                "in zip(group, outcomes, strict=True):\n        pending.finish(outcome)",
                "in zip(group, reversed(outcomes), strict=True):\n        pending.finish(outcome)",
            ),
        ),
        (f"{_SHARED}_verbs_of_all_kinds_share_a_commit_and_each_has_its_own_answer",),
        DURABLE,
    ),
    "a commit that failed is taken for one that took effect": Break(
        (
            Cut(
                _OUTCOME,
                "there = data is not None and decode_meta(META_KEY, bytes(data)).group >= number",
                "there = True",
            ),
        ),
        (f"{_GROUP}_what_a_failed_commit_did_is_found_out",),
        DURABLE,
    ),
    "an outcome that nobody knows is told as success": Break(
        (Cut(_OUTCOME, "pending.finish(None, unknown)", "pending.finish(outcome)"),),
        (f"{_GROUP}_an_outcome_that_cannot_be_found_out_is_unknown_and_not_tried_again",),
        DURABLE,
    ),
    "the write lock is not taken": Break(
        (
            Cut(
                "repo/lmdb/filelock.py",
                "            self._busy = True\n        start",
                "            self._busy = True\n        return\n        start",
            ),
        ),
        (f"{_LOCKS}_a_lock_that_another_process_holds_is_waited_for_no_longer_than_asked",),
        DURABLE,
    ),
    "nobody looks whether another process has committed": Break(
        (
            Cut(
                "repo/lmdb/access.py",
                "if remembered is not None and txn.get(META_KEY, db=db.meta) == remembered.record:",
                "if remembered is not None:",
            ),
        ),
        (
            "repo/lmdb/test_kept.py::test_two_processes_that_take_turns_lose_nothing",
            "repo/lmdb/test_kept.py::test_settings_of_another_process_hold_at_the_next_call",
        ),
        DURABLE,
    ),
    "the checksum of a job is not verified": Break(
        (
            Cut(
                _RECORDS,
                "len(record) < _LEAST_BODY or crc(record, crc(job_id, IS_BODY)) != INTACT:",
                "len(record) < _LEAST_BODY:",
            ),
        ),
        (
            "repo/lmdb/test_records.py::test_any_single_flipped_bit_is_noticed",
            "torture/damage/test_damage.py::test_no_damaged_record_is_read_wrong",
        ),
        DURABLE,
    ),
    "a checksum does not say whose record it is": Break(
        (
            Cut(_RECORDS, "check = crc(data, crc(job_id, IS_BODY))", "check = crc(data, IS_BODY)"),
            Cut(
                _RECORDS,
                "crc(record, crc(job_id, IS_BODY)) != INTACT",
                "crc(record, IS_BODY) != INTACT",
            ),
        ),
        ("repo/lmdb/test_records.py::test_a_record_under_another_key_is_noticed",),
        DURABLE,
    ),
    "check finds nothing, whatever is wrong": Break(
        (
            Cut(
                "repo/operations/checking.py",
                "CheckReport(checker.jobs, tuple(problems))",
                "CheckReport(checker.jobs, ())",
            ),
        ),
        ("repo/test_check.py::test_check_says_what_is_wrong",),
    ),
    "files that were removed or replaced are written on": Break(
        (Cut(_OPEN_FILE, "        if not same:\n", "        if False:\n"),),
        ("repo/lmdb/test_identity.py::test_the_next_write_is_an_error",),
        DURABLE,
    ),
    "a full queue takes new jobs": Break(
        (Cut(_TRANSACTIONS, "        if size:\n", "        if False:\n"),),
        ("repo/lmdb/test_room.py::test_a_job_that_is_larger_than_the_whole_quota_is_refused",),
        DURABLE,
    ),
    "a queue with its topics in memory is open to other processes": Break(
        (
            Cut(
                "repo/lmdb/openlock.py",
                "TRY if alone else _TOGETHER",
                "_TOGETHER",
            ),
        ),
        ("repo/lmdb/test_mixed.py::test_the_command_line_says_who_has_the_queue",),
        MIXED,
    ),
}

CALLS: Final = {
    "a job that becomes ready calls nobody": Break(
        (
            Cut(
                _PLACES,
                "        tx.woken[number] = tx.woken.get(number, 0) + len(waiting)\n",
                "        pass\n",
            ),
        ),
        (
            # One way each: who is not called comes after a second, three times over.
            f"{_THREADS}_whatever_makes_a_job_ready_wakes_a_waiter_at_once[memory-give_back]",
            f"{_THREADS}_whatever_makes_a_job_ready_wakes_a_waiter_at_once[lmdb-give_back]",
            f"{_THREADS}_whatever_makes_a_job_ready_wakes_a_waiter_at_once[mixed-try_again]",
            "crash/test_wakeup.py::test_a_job_that_comes_back_wakes_a_waiter[release]",
        ),
    ),
    "an earlier due time calls nobody": Break(
        (
            Cut(
                "repo/operations/soon.py",
                "        tx.soon[number] = min(in_us, tx.soon.get(number, in_us))\n",
                "        pass\n",
            ),
        ),
        (
            f"{_THREADS}_a_waiter_notices_an_earlier_due_time_that_comes_while_it_sleeps",
            "crash/test_wakeup.py::test_an_earlier_due_time_shortens_a_sleep_that_has_begun",
        ),
    ),
    "all who wait look when something falls due": Break(
        (Cut(_WATCH_CODE, "if self._board.is_watched(desk, due_ns + SLACK_NS):", "if False:"),),
        (f"{_WATCH}_few_of_many_get_up_for_a_job_that_falls_due",),
    ),
    "who was to look for others takes a job and calls nobody": Break(
        (
            Cut(
                "repo/operations/passing.py",
                "        note_due(tx, STORE, max(0, int(seconds_to_next(tx) * 1e6)))\n",
                "        pass\n",
            ),
        ),
        (f"{_WATCH}_who_has_the_watch_and_takes_a_job_has_another_one_look",),
    ),
    "who cannot stay until something is due calls nobody": Break(
        (Cut(_WATCH_CODE, "*self._left_alone, ", ""),),
        (f"{_WATCH}_who_cannot_stay_until_something_is_due_has_another_one_look",),
    ),
    "who is interrupted and was to look for others calls nobody": Break(
        (
            Cut(
                _WATCH_CODE,
                "            self._board.relieve(desk)\n\n\nclass Left",
                "            pass\n\n\nclass Left",
            ),
        ),
        (f"{_WATCH}_who_is_interrupted_when_it_gets_up_has_another_one_look",),
    ),
    "who was to look is gone, and others of a topic at its rate are not called": Break(
        (
            Cut(
                "repo/operations/passing.py",
                "        if 0 < limits.ready_in(tx, topic) < LONGEST_SLEEP:\n",
                "        if False:\n",
            ),
        ),
        (f"{_WATCH}_jobs_of_a_topic_at_its_rate_come_when_it_allows_them",),
    ),
    "a place that is given back calls nobody": Break(
        (
            Cut(
                _LIMITS,
                "            tx.woken[topic] = tx.woken.get(topic, 0) + min(jobs, waiting)\n",
                "            pass\n",
            ),
        ),
        ("repo/test_contract_limits.py::test_a_slot_that_is_freed_wakes_who_waits_for_it",),
    ),
    "the end of a job calls nobody": Break(
        (Cut(_PLACES, "    tx.ended += ids\n", ""),),
        tuple(
            f"repo/test_contract_wait.py::test_a_job_that_ends_wakes_who_sleeps[{kind}-done-0]"
            for kind in sorted(EVERY)
        ),
    ),
    "waiters are called before the commit": Break(
        (
            Cut(
                _TRANSACTIONS,
                "            txn.commit()  # also",
                "            ended, tx.ended = tx.ended, []\n"  # which are called for as ever
                "            from jobq.repo.lmdb.environment import _raise_counters, _ring\n"
                "            _raise_counters(self._file.bell, [tx], [])\n"
                "            _ring(self._file.bell, [tx], [], self.topics)\n"
                "            tx.woken, tx.soon, tx.ended = {}, {}, ended\n"
                "            txn.commit()  # also",
            ),
        ),
        (f"{_CALLS}_nobody_is_called_before_there_is_something_to_find",),
        DURABLE,
    ),
    "a waiter reads the counter after it has looked": Break(
        (
            Cut(
                "repo/lmdb/store.py",
                "bell.wait_for_any(look.topics, page, ",
                "bell.wait_for_any(look.topics, bell.page(), ",
            ),
        ),
        (f"{_CALLS}_what_comes_before_any_line_of_a_wait_ends_it[for_a_topic]",),
        DURABLE,
    ),
    "nobody writes before the dead are searched for": Break(
        (
            Cut(
                "repo/lmdb/store.py",
                "                self._write(_nothing, TIMELESS, patience=patience)\n",
                "                pass\n",
            ),
        ),
        (f"{_KILLS}_what_a_killed_process_reserved_in_a_commit_it_could_not_tell_of_comes_back",),
        DURABLE,
    ),
    "a job calls who waits for any topic": Break(
        (
            Cut(
                "repo/lmdb/bell.py",
                "return topic if topic < COUNTERS else 1 + topic % (COUNTERS - 1)",
                "return 1",
            ),
        ),
        (f"{_LOCKS}_who_waits_for_another_topic_sleeps_on",),
        DURABLE,
    ),
    "one job calls all who wait for its topic": Break(
        (Cut(_ENVIRONMENT, "EVERYBODY if shared else jobs)", "EVERYBODY)"),),
        (f"{_CALLS}_a_commit_calls_as_many_as_it_has_jobs_for_and_no_more",),
        DURABLE,
    ),
    "however many jobs come, one waiter is called": Break(
        (Cut(_ENVIRONMENT, "EVERYBODY if shared else jobs)", "1)"),),
        (f"{_CALLS}_a_commit_calls_as_many_as_it_has_jobs_for_and_no_more",),
        DURABLE,
    ),
}

ALL: Final = {**COMMITS, **CALLS}
