"""jobq, broken where it decides what becomes of jobs: in the operations that all stores share.

Each break says what is wrong then, in which lines, and which tests have to fail for it: for every
kind of store, unless it says for which.
"""

from typing import Final

from tests.torture.breaks.broken import DURABLE, LMDB, Break, Cut

_CHANGE: Final = "repo/operations/change.py"
_DUE: Final = "repo/operations/due.py"
_FLOW: Final = "repo/operations/flow"
_PLACES: Final = "repo/operations/places.py"
_RESERVE: Final = "repo/operations/reserve.py"
_SETTLE: Final = "repo/operations/settle.py"
_VERBS: Final = "repo/transactional.py"
_HOLDERS: Final = "repo/lmdb/holders.py"

_LIFE: Final = "repo/lmdb/test_holders.py::test"
_CAPS: Final = "repo/test_contract_caps.py::test"
_FENCING: Final = "repo/test_contract_fencing.py::test"
_ORDER: Final = "repo/test_contract_order.py::test"
_RETENTION: Final = "repo/test_contract_retention.py::test"
_TIME: Final = "repo/test_contract_time.py::test"
_STORY: Final = (
    "model/test_same_story.py::test_every_store_answers_any_story_as_the_model_does[SameStory]"
)

HOLDING: Final = {
    "the token is not compared": Break(
        (Cut(_SETTLE, "if state[7] != token or state[3]", "if state[3]"),),
        (
            f"{_FENCING}_a_holder_cannot_settle_what_somebody_else_holds_by_now",
            f"{_FENCING}_a_token_that_was_never_given_settles_nothing",
        ),
    ),
    "extend does not compare the token": Break(
        (Cut(_SETTLE, "return state.token == token and state", "return state"),),
        (f"{_FENCING}_a_token_that_was_never_given_settles_nothing",),
    ),
    "a lease that is over lets its holder settle until somebody looks": Break(
        (
            Cut(
                _SETTLE,
                "is not Status.RESERVED or state[11] <= boot_us:",
                "is not Status.RESERVED:",
            ),
        ),
        (f"{_FENCING}_a_lease_is_over_when_its_time_has_passed_even_behind_a_backlog_of_others",),
    ),
    "a settlement that is repeated is refused": Break(
        (Cut(_SETTLE, "= state.token == token and state.settled is event", "= False"),),
        (f"{_FENCING}_a_settlement_repeated_with_its_token_is_a_no_op",),
    ),
    "a job that is done can be canceled": Break(
        (
            Cut(
                _CHANGE,
                "elif can_move(both[1].status, event) and",
                "elif (can_move(both[1].status, event) or both[1].status is Status.DONE) and",
            ),
        ),
        (f"{_FENCING}_a_job_that_is_done_cannot_be_canceled",),
    ),
    "a lease is half as long": Break(
        (Cut(_RESERVE, "holder = tx.boot_us + lease_us,", "holder = tx.boot_us + lease_us // 2,"),),
        (f"{_TIME}_leases_end_each_at_its_own_time",),
    ),
    "a lease is twice as long": Break(
        (Cut(_RESERVE, "holder = tx.boot_us + lease_us,", "holder = tx.boot_us + lease_us * 2,"),),
        (f"{_TIME}_leases_end_each_at_its_own_time",),
    ),
    "a lease ends by the wall clock": Break(
        (Cut(_RESERVE, "holder = tx.boot_us + lease_us,", "holder = tx.wall_us + lease_us,"),),
        (f"{_TIME}_an_expired_job_is_ready_at_once_and_one_crash_is_counted",),
    ),
    "a lease that is over is not ended": Break(
        (
            Cut(
                _VERBS,
                "due = tx.topics.due(Agenda.LEASE, tx.boot_us, limit)",
                "due = tx.topics.due(Agenda.LEASE, 0, limit)",
            ),
        ),
        (f"{_TIME}_an_expired_job_is_ready_at_once_and_one_crash_is_counted",),
    ),
    "a crash is not counted": Break(
        (Cut(_DUE, "crashes=state.crashes + 1,", "crashes=state.crashes,"),),
        (
            f"{_TIME}_an_expired_job_is_ready_at_once_and_one_crash_is_counted",
            "crash/test_redelivery.py::test_a_job_whose_holders_keep_dying_is_canceled_as_poison",
        ),
    ),
    "a crash counts as a retry, too": Break(
        (Cut(_DUE, "crashes=state.crashes + 1,", "crashes=state.crashes + 1, retries=1,"),),
        (f"{_TIME}_crashes_leave_the_retries_alone_and_retries_the_crashes",),
    ),
    "the death of a holder is not noticed": Break(
        (
            Cut(
                _HOLDERS,
                "        else:\n            return True",
                "        else:\n            return False",
            ),
        ),
        ("crash/test_steps.py::test_a_verb_killed_at_any_step_is_whole_or_absent[reserve]",),
        DURABLE,
    ),
    "a holder that lives is taken for dead": Break(
        (
            Cut(
                _HOLDERS,
                "BlockingIOError:\n            return False",
                "BlockingIOError:\n            return True",
            ),
        ),
        (
            "crash/test_redelivery.py::test_the_jobs_of_the_living_stay_with_them",
            "repo/lmdb/test_holders.py::test_a_living_holder_keeps_its_jobs_while_others_wait",
        ),
        LMDB,
    ),
    "a fork's child keeps its parent alive as a holder": Break(
        (
            Cut(
                "repo/lmdb/openfile.py",
                "self.lock = None\n        self._shut()\n",
                "self.lock = self._holders = None\n        self._shut()\n",
            ),
        ),
        (f"{_LIFE}_what_a_killed_worker_has_started_does_not_keep_its_jobs[a forked child]",),
        LMDB,
    ),
}

ORDER: Final = {
    "the wait before a retry grows beyond its cap": Break(
        (Cut("backoff.py", "min(max_backoff, wait) * (1.0", "wait * (1.0"),),
        ("test_backoff.py::test_the_wait_reaches_the_cap_and_stays_there",),
    ),
    "a delayed job is ready a second before its time": Break(
        (
            Cut(
                _DUE,
                "due = tx.topics.due(Agenda.DELAYED, tx.wall_us, limit)",
                "due = tx.topics.due(Agenda.DELAYED, tx.wall_us + 1_000_000, limit)",
            ),
            Cut(
                _VERBS,
                "topics.is_due(Agenda.DELAYED, tx.wall_us)",
                "topics.is_due(Agenda.DELAYED, tx.wall_us + 1_000_000)",
            ),
        ),
        (f"{_TIME}_a_delayed_job_is_ready_when_its_time_has_come_and_not_before",),
    ),
    "a job is promoted again and again": Break(
        (
            Cut(_DUE, "    tx.topics.unhold(Agenda.DELAYED, [held for held, _ in found])\n", ""),
            Cut(
                _DUE,
                "if state is None or not can_move(state.status, Event.PROMOTE):",
                "if not state:",
            ),
        ),
        (f"{_TIME}_a_delayed_job_is_ready_when_its_time_has_come_and_not_before", _STORY),
    ),
    "of what is due the last comes first": Break(
        (
            Cut(
                _DUE,
                "due = tx.topics.due(Agenda.DELAYED, tx.wall_us, limit)",
                "due = tx.topics.due(Agenda.DELAYED, tx.wall_us, 10**6)[-limit:]",
            ),
        ),
        (f"{_TIME}_a_backlog_falls_due_in_order_step_by_step",),
    ),
    "a job that comes back goes to the back": Break(
        (
            Cut(
                _PLACES,
                "        if state.notes & TERMS:\n            if state.status is Status.RESERVED:",
                "        state = state._replace(seq=tx.topics.next_seq(1))\n"
                "        if state.notes & TERMS:\n            if state.status is Status.RESERVED:",
            ),
        ),
        (
            f"{_ORDER}_a_released_retried_or_expired_job_keeps_its_place",
            f"{_ORDER}_a_job_that_had_to_wait_takes_part_from_its_old_place",
        ),
    ),
    "a job that is reset keeps its old place": Break(
        (
            Cut(_CHANGE, "settled=None, seq=place, retries=0,", "settled=None, retries=0,"),
            Cut(
                _CHANGE,
                "Waiting(state.weight, place, job_id)",
                "Waiting(state.weight, state.seq, job_id)",
            ),
        ),
        (f"{_ORDER}_a_reset_job_goes_to_the_back_of_its_weight",),
    ),
    "places are given again when a queue is opened": Break(
        (
            Cut(
                "repo/lmdb/access.py",
                "        self.meta = decode_meta(META_KEY, record)\n",
                "        self.meta = decode_meta(META_KEY, record)\n        self.meta.seq = 0\n",
            ),
        ),
        ("repo/test_contract_durable.py::test_the_order_is_the_same_after_reopening",),
        DURABLE,
    ),
    "ids go back when the clock does": Break(
        (Cut("ids.py", "if now_ms > last_ms:", "if now_ms != last_ms:"),),
        (
            f"{_ORDER}_ids_grow_in_the_order_of_enqueueing_even_when_the_clock_steps_back",
            "test_ids.py::test_a_clock_set_back_by_an_hour_does_not_bring_smaller_ids",
        ),
    ),
    "shares are ignored": Break(
        (
            Cut(
                f"{_FLOW}/shares.py",
                "strides = [turns[topic][1] for topic",
                "strides = [1 for topic",
            ),
        ),
        ("repo/test_contract_shares.py::test_jobs_come_in_the_order_of_turns",),
    ),
    "a plain name is taken for a pattern": Break(
        (
            Cut(
                f"{_FLOW}/shares.py",
                "(one, at) for at, (one, _) in enumerate(mix.shares) if isinstance(one, Pattern)",
                "(one if isinstance(one, Pattern) else Pattern(one), at)\n"
                "            for at, (one, _) in enumerate(mix.shares)",
            ),
        ),
        ("repo/test_contract_shares.py::test_a_name_is_one_topic_whatever_its_characters",),
    ),
}

INDEXES: Final = {
    "a job that is reserved stays in its queue": Break(
        (
            Cut(
                "repo/lmdb/topics.py",
                "cursor.delete()  # which leaves the cursor on the next one\n        if taken:",
                "cursor.next()\n        if taken:",
            ),
        ),
        (f"{_FENCING}_no_job_is_handed_out_twice_while_it_is_held",),
        LMDB,
    ),
    "a job that is canceled is handed out": Break(
        (
            Cut(
                _PLACES,
                "        tx.topics.remove(lane, waiting)\n        if groups",
                "        if groups",
            ),
            Cut(_RESERVE, "if not in_place or status not in _RESERVABLE:", "if not in_place:"),
        ),
        (f"{_ORDER}_a_cancelled_job_leaves_the_order_of_the_others_alone", _STORY),
    ),
    "the lease of a job that is settled stays in the agenda": Break(
        (
            Cut(
                _SETTLE,
                "        tx.topics.unhold(Agenda.LEASE, [(state[11]",
                "        _ = (Agenda.LEASE, [(state[11]",
            ),
        ),
        (f"{_TIME}_settled_jobs_do_not_expire",),
    ),
    "a job that is settled goes on counting as reserved": Break(
        (Cut(_PLACES, "        tx.topics.count(topic, Status.RESERVED, -jobs)\n", ""),),
        ("repo/test_contract_topics.py::test_counts_equal_what_is_there_after_any_story", _STORY),
    ),
    "a job that is pruned goes on counting": Break(
        (
            Cut(
                _PLACES,
                "        tx.topics.count(state.topic, state.status, -1)\n        gone",
                "        gone",
            ),
        ),
        (f"{_RETENTION}_a_done_job_is_kept_for_a_day",),
    ),
    "the bytes of a job that comes back are not counted": Break(
        (
            Cut(
                _PLACES,
                "    for topic, size in sizes.items():\n        tx.topics.add_size(topic, size)\n",
                "",
            ),
        ),
        (f"{_CAPS}_the_bytes_that_wait_are_exact_after_every_verb",),
    ),
    "a done job is pruned before its time": Break(
        (
            Cut(
                _PLACES,
                "until_us = tx.wall_us + keep_us\n",
                "until_us = tx.wall_us + keep_us // 2\n",
            ),
        ),
        (f"{_RETENTION}_a_done_job_is_kept_for_a_day",),
    ),
    "a job that was reset is pruned at its old time": Break(
        (
            Cut(
                _PLACES,
                "in agendas.items():\n        tx.topics.unhold(agenda, held)\n",
                "in agendas.items():\n        if agenda is not Agenda.DONE:\n"
                "            tx.topics.unhold(agenda, held)\n",
            ),
            Cut(
                _PLACES,
                "        if state is None or AGENDA_OF.get(state.status) is not agenda:\n",
                "        if state is None:\n            continue\n        if False:\n",
            ),
        ),
        (f"{_RETENTION}_a_reset_job_is_not_pruned_when_its_old_time_comes",),
    ),
}

ALL: Final = {**HOLDING, **ORDER, **INDEXES}
