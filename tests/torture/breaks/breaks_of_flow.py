"""jobq, broken where it decides what may run, and in what it keeps of jobs.

As in `breaks_of_jobs`.
"""

from typing import Final

from tests.torture.breaks.broken import Break, Cut

_CHANGE: Final = "repo/operations/change.py"
_EDIT: Final = "repo/operations/edit.py"
_ENQUEUE: Final = "repo/operations/enqueue.py"
_FLOW: Final = "repo/operations/flow"
_HISTORY: Final = "repo/operations/history.py"
_PLACES: Final = "repo/operations/places.py"
_RESERVE: Final = "repo/operations/reserve.py"
_TRANSFER: Final = "repo/operations/transfer.py"
_CAPS: Final = "repo/test_contract_caps.py::test"
_DEADLINES: Final = "repo/test_contract_deadlines.py::test"
_GROUPS: Final = "repo/test_contract_groups.py::test"
_LIMITS: Final = "repo/test_contract_limits.py::test"
_PAST: Final = "repo/test_contract_history.py::test"
_LOOPS: Final = "service/test_consume.py::test"
_UNIQUE: Final = "repo/test_contract_unique.py::test"
_RACES: Final = "crash/test_races.py::test"
_STORY: Final = (
    "model/test_same_story.py::test_every_store_answers_any_story_as_the_model_does[SameStory]"
)
_STORY_OF_TERMS: Final = (
    "model/test_terms.py::test_stores_and_model_agree_on_keys_deadlines_and_caps"
)
_STORY_OF_FLOW: Final = "model/test_flow.py::test_limits_and_turns_are_the_models[FlowStory]"

FLOW_CONTROL: Final = {
    "nobody asks who has a unique key": Break(
        (
            Cut(
                _ENQUEUE,
                "        if has is None or (has in leaving",
                "        if True or (has in leaving",
            ),
        ),
        (f"{_UNIQUE}_a_second_enqueue_gives_the_job_that_has_the_key", _STORY_OF_TERMS),
    ),
    "the unique key of a job that ends stays taken": Break(
        (Cut(_PLACES, "            uniques.give_up(tx, bound)\n", "            pass\n"),),
        (f"{_UNIQUE}_the_key_is_free_when_its_job_has_ended", _STORY_OF_TERMS),
    ),
    "an edit that is refused is made": Break(
        (Cut(_EDIT, "    for job_id in refused:\n        del chosen[job_id]\n", ""),),
        (f"{_UNIQUE}_an_edit_to_a_key_that_another_job_has_is_a_conflict_and_changes_nothing",),
    ),
    "the place of a group is not given back": Break(
        (Cut(_PLACES, "        groups.leave(tx, grouped)\n", "        pass\n"),),
        (f"{_GROUPS}_a_job_that_is_done_lets_the_next_of_its_group_go", _STORY_OF_FLOW),
    ),
    "one job more of a group runs than may": Break(
        (
            Cut(
                f"{_FLOW}/groups.py",
                "lane.running >= settings.group_concurrency:",
                "lane.running > settings.group_concurrency:",
            ),
            Cut(
                f"{_FLOW}/turns.py",
                "settings.group_concurrency - lane.running",
                "settings.group_concurrency + 1 - lane.running",
            ),
        ),
        (
            f"{_GROUPS}_no_more_of_a_group_are_reserved_than_its_concurrency",
            f"{_RACES}_each_group_of_one_at_a_time_is_served_in_strict_order",
        ),
    ),
    "one job more of a topic runs than may": Break(
        (
            Cut(
                f"{_FLOW}/limits.py",
                "settings.concurrency - running(tx, topic))",
                "settings.concurrency + 1 - running(tx, topic))",
            ),
        ),
        (
            f"{_LIMITS}_no_more_are_reserved_at_once_than_the_concurrency",
            f"{_RACES}_no_more_jobs_of_a_topic_run_at_once_than_its_concurrency",
        ),
    ),
    "a canceled job's place is given away while its holder works on": Break(
        (
            Cut(
                f"{_FLOW}/lingering.py",
                "if settings.concurrency is None and not grouped and unique is None:",
                "if True:",
            ),
        ),
        (
            f"{_GROUPS}_a_group_stays_blocked_until_the_holder_of_a_canceled_job_knows",
            f"{_UNIQUE}_a_key_stays_taken_until_the_holder_of_a_canceled_job_knows",
        ),
    ),
    "what is handed out is not counted against the rate": Break(
        (
            Cut(
                f"{_FLOW}/limits.py",
                "        tx.topics.set_figure(topic, Figure.TAT_NS, after)\n",
                "",
            ),
        ),
        (
            f"{_LIMITS}_a_burst_goes_at_once_and_then_one_job_an_interval",
            f"{_RACES}_no_more_jobs_are_handed_out_in_any_time_than_the_rate_allows",
        ),
    ),
    "a topic that is paused hands out jobs": Break(
        (Cut(f"{_FLOW}/limits.py", "if settings.paused or tx", "if tx"),),
        (f"{_LIMITS}_a_paused_topic_hands_out_nothing_and_takes_jobs",),
    ),
    "a cap is compared before what comes is added": Break(
        (
            Cut(
                f"{_FLOW}/caps.py",
                "jobs + more.jobs > settings.max_jobs",
                "jobs > settings.max_jobs",
            ),
        ),
        (
            f"{_CAPS}_as_many_jobs_wait_as_may_and_not_one_more",
            f"{_RACES}_no_more_jobs_wait_than_may_and_none_is_lost_silently",
        ),
    ),
    "a reservation does not look at deadlines": Break(
        (Cut(_RESERVE, "if notes & TERMS and deadlines.has_lapsed(tx, options):", "if False:"),),
        (f"{_DEADLINES}_a_job_is_never_handed_out_after_its_deadline_whatever_is_due",),
    ),
}

CONTENTS: Final = {
    "all jobs of a reservation have the payload of the first": Break(
        (
            Cut(
                _RESERVE,
                "retries, crashes, lease_us, options, body[7],\n",
                "retries, crashes, lease_us, options,\n"
                "                reservations[0].payload if reservations else body[7],\n",
            ),
        ),
        (
            "repo/test_contract_batches.py::test_a_batch_of_jobs_of_every_kind_keeps_each_as_it_was",
            _STORY,
        ),
    ),
    "a reset keeps the old result": Break(
        (
            Cut(
                _CHANGE,
                "for note in (Note.RESULT, Note.PROGRESS):",
                "for note in (Note.PROGRESS,):",
            ),
            Cut(_CHANGE, "~(Note.RESULT | Note.PROGRESS | LISTED)", "~(Note.PROGRESS | LISTED)"),
        ),
        (
            "repo/test_contract_moves.py::test_a_reset_job_is_as_if_never_tried_but_goes_on_counting",
        ),
    ),
    "attempts leave no history": Break(
        (
            Cut(
                _HISTORY,
                "    return keep_attempt(tx, job_id, state, attempt)\n",
                "    return state.notes\n",
            ),
        ),
        (f"{_PAST}_every_way_in_which_a_reservation_ends_is_told_in_order",),
    ),
    "an import takes the place of what is there": Break(
        (Cut(_TRANSFER, "if body is not None or copy.id in chosen:", "if copy.id in chosen:"),),
        ("repo/test_contract_transfer.py::test_what_is_there_already_stays_as_it_is",),
    ),
}

LOOPS: Final = {
    "a block that ends by an exception is done": Break(
        (
            Cut(
                "service/job.py",
                "        if error is None:\n            return",
                "        if True:\n            return",
            ),
        ),
        (f"{_LOOPS}_an_exception_inside_the_block_is_a_retry_and_the_loop_goes_on",),
    ),
    "what a loop has not begun stays held": Break(
        (Cut("service/consumer.py", "            if unstarted:\n", "            if False:\n"),),
        (f"{_LOOPS}_break_commits_what_has_ended_and_releases_what_was_not_begun",),
    ),
    "a loop does not extend its leases": Break(
        (Cut("service/keeper.py", "            self._extend()\n", "            pass\n"),),
        ("service/test_keeper.py::test_consume_keeps_the_leases_of_its_whole_batch",),
    ),
}

ALL: Final = {**FLOW_CONTROL, **CONTENTS, **LOOPS}
