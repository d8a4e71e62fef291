"""jobq, broken where it meets a machine: its clocks, its processes and users, its disk.

As in `breaks_of_jobs`. Some are noticed only where a process may make places of its own, or mount:
where it may not, their tests are skipped, and so are the breaks.
"""

from typing import Final

from tests.torture.breaks.broken import DURABLE, LMDB, Break, Cut

_CLOCK_CODE: Final = "clock.py"
_FILES: Final = "repo/lmdb/files.py"
_HOLDERS_CODE: Final = "repo/lmdb/holders.py"
_OPENING_CODE: Final = "repo/lmdb/opening.py"
_ROOM_CODE: Final = "repo/lmdb/room.py"
_TRANSACTIONS: Final = "repo/lmdb/transactions.py"
_TURNS: Final = "repo/operations/flow/turns.py"

_CLOCK: Final = "test_clock.py::test"
_CLOCKS: Final = "torture/clocks/test_clocks.py::test"
_FAILING: Final = "torture/disk/test_io_power.py::test"
_FORKS: Final = "crash/test_fork.py::test"
_GROUPS: Final = "repo/test_contract_groups.py::test"
_HOLDERS: Final = "repo/lmdb/test_holders.py::test"
_NAMESPACES: Final = "torture/processes/test_namespaces.py::test"
_OPENING: Final = "repo/lmdb/test_opening.py::test"
_PROCESSES: Final = "torture/processes/test_processes.py::test"
_ROOM: Final = "repo/lmdb/test_room.py::test"
_TIME: Final = "repo/test_contract_time.py::test"
_SPUN: Final = f"{_CLOCKS}_who_waits_for_the_wall_clock_notices_that_it_was_stepped_and_never_spins"
_TWIN: Final = (
    f"{_NAMESPACES}_a_process_whose_pid_is_that_of_another_one_elsewhere_is_refused_and_does_no_"
    "harm"
)

CLOCKS: Final = {
    "what a time namespace adds is left in leases": Break(
        (
            Cut(
                _CLOCK_CODE,
                "self.ahead_ns = seconds * 10**9 + nanoseconds",
                "self.ahead_ns = 0 * (seconds + nanoseconds)",
            ),
        ),
        (
            f"{_CLOCK}_what_a_time_namespace_adds_to_the_boot_clock_is_taken_off",
            f"{_NAMESPACES}_a_lease_is_as_long_in_every_time_namespace[of one that is ahead]",
            f"{_NAMESPACES}_a_rate_holds_over_all_time_namespaces",
        ),
        DURABLE,
    ),
    "a fork's child remembers the time namespace of its parent": Break(
        (Cut(_CLOCK_CODE, "        self.ahead_ns = None\n", "        pass\n"),),
        (f"{_NAMESPACES}_children_of_a_process_find_out_their_own_time_namespace",),
        DURABLE,
    ),
    "who has made a time namespace for its children takes it for its own": Break(
        (Cut(_CLOCK_CODE, "        if len(links) > 1:\n", "        if False:\n"),),
        (f"{_NAMESPACES}_who_cannot_tell_its_own_time_namespace_any_more_is_refused",),
        DURABLE,
    ),
    "who is shown another boot id is dead": Break(
        (
            Cut(
                _HOLDERS_CODE,
                "        except PermissionError:\n",
                "        except ZeroDivisionError:\n            return False\n"
                "        if holder[:MARK] != self._mark:\n            os.close(fd)\n"
                "            return True\n        try:\n            pass\n"
                "        except PermissionError:\n",
            ),
        ),
        (
            f"{_HOLDERS}_a_holder_that_was_shown_another_boot_id_lives_as_long_as_its_process",
            f"{_NAMESPACES}_holders_that_are_shown_different_boot_ids_are_alive_to_each_other",
        ),
        DURABLE,
    ),
    "anything is taken for the id of a boot": Break(
        (
            Cut(
                _CLOCK_CODE,
                "                except ValueError:\n",
                "                except ValueError:\n                    return bytes(16)\n",
            ),
        ),
        (
            f"{_CLOCK}_what_is_no_boot_id_is_refused",
            f"{_NAMESPACES}_without_a_boot_id_a_queue_is_refused[not shown]",
        ),
        DURABLE,
    ),
    "a wall clock may show a time before 1970": Break(
        (Cut(_CLOCK_CODE, "max(EARLIEST_US, time.time_ns() // 1000)", "time.time_ns() // 1000"),),
        (f"{_CLOCK}_no_clock_shows_a_time_before_1970",),
    ),
    "due times follow the boot clock": Break(
        (
            Cut(
                "repo/operations/due.py",
                "tx.topics.due(Agenda.DELAYED, tx.wall_us, limit)",
                "tx.topics.due(Agenda.DELAYED, tx.boot_us + 1_699_996_400_000_000, limit)",
            ),
            Cut(
                "repo/transactional.py",
                "topics.is_due(Agenda.DELAYED, tx.wall_us)",
                "topics.is_due(Agenda.DELAYED, tx.boot_us + 1_699_996_400_000_000)",
            ),
        ),
        (f"{_TIME}_delayed_jobs_follow_the_wall_clock",),
    ),
    "the rate of a topic follows the wall clock": Break(
        (
            Cut(
                "repo/operations/flow/limits.py",
                "n = min(n, limit.allowed(tat_ns, tx.boot_us * 1000))",
                "n = min(n, limit.allowed(tat_ns, tx.wall_us * 1000))",
            ),
            Cut(
                "repo/operations/flow/limits.py",
                "after = limit.after(tat_ns, tx.boot_us * 1000, jobs)",
                "after = limit.after(tat_ns, tx.wall_us * 1000, jobs)",
            ),
        ),
        ("repo/test_contract_limits.py::test_the_rate_is_counted_on_a_clock_that_nobody_steps",),
    ),
    "the rate of a group follows the wall clock": Break(
        (
            Cut(
                _TURNS,
                "most = min(most, limit.allowed(lane.tat_ns, tx.boot_us * 1000))",
                "most = min(most, limit.allowed(lane.tat_ns, tx.wall_us * 1000))",
            ),
            Cut(
                _TURNS,
                "tat_ns = limit.after(tat_ns, tx.boot_us * 1000, jobs)",
                "tat_ns = limit.after(tat_ns, tx.wall_us * 1000, jobs)",
            ),
            Cut(
                "repo/operations/flow/groups.py",
                "    now_ns = tx.boot_us * 1000\n    limit = rate_of(settings)\n",
                "    now_ns = tx.wall_us * 1000\n    limit = rate_of(settings)\n",
            ),
            Cut(
                "repo/operations/flow/groups.py",
                "due = tx.topics.due(Agenda.LANE, tx.boot_us, limit)",
                "due = tx.topics.due(Agenda.LANE, tx.wall_us, limit)",
            ),
        ),
        (f"{_GROUPS}_the_rate_of_a_group_is_counted_on_a_clock_that_nobody_steps",),
    ),
    "who waits sleeps as long as nobody calls": Break(
        (
            Cut("repo/watch.py", "LONGEST_SLEEP: Final = 1.0", "LONGEST_SLEEP: Final = 600.0"),
            Cut(
                "service/aio/lines.py",
                "LONGEST_SLEEP_S: Final = 1.0",
                "LONGEST_SLEEP_S: Final = 600.0",
            ),
        ),
        (f"{_SPUN}[8]",),
        LMDB,
    ),
    "who waits looks all the time": Break(
        (Cut("repo/watch.py", "LONGEST_SLEEP: Final = 1.0", "LONGEST_SLEEP: Final = 0.001"),),
        (f"{_SPUN}[8]",),
        LMDB,
    ),
}

PROCESSES: Final = {
    "a data file with two names is taken": Break(
        (Cut(_FILES, "S_ISREG(data.st_mode) and data.st_nlink > 1", "S_ISFIFO(data.st_mode)"),),
        (
            f"{_OPENING}_a_data_file_with_two_names_is_refused_by_either_until_it_has_one",
            f"{_OPENING}_a_link_to_an_open_queue_is_refused_and_does_the_open_one_no_harm",
        ),
        DURABLE,
    ),
    "a link to a data file is taken": Break(
        (Cut(_FILES, "    if os.path.islink(path / DATA):\n", "    if False:\n"),),
        (f"{_PROCESSES}_a_link_to_the_data_file_alone_is_refused",),
        DURABLE,
    ),
    "a data file that is mounted by itself is taken": Break(
        (Cut(_FILES, "os.path.join(where, name) in places", "name in places"),),
        (f"{_PROCESSES}_a_file_of_a_queue_that_is_mounted_by_itself_is_refused",),
        DURABLE,
    ),
    "a network file system is taken": Break(
        (Cut(_FILES, "    if kind in NETWORK or (kind", "    if (kind"),),
        (
            f"{_OPENING}_network_file_systems_are_refused",
            f"{_OPENING}_a_link_to_a_network_file_system_is_refused",
        ),
        DURABLE,
    ),
    "FUSE is taken unasked": Break(
        (Cut(_FILES, 'and kind != "fuseblk" and not fuse)', 'and kind == "")'),),
        (f"{_OPENING}_network_file_systems_are_refused[existing-fuse.sshfs]",),
        DURABLE,
    ),
    "a queue in an image layer is taken": Break(
        (Cut(_FILES, 'elif kind == "overlay" and in_image_layer(where, text):', "elif False:"),),
        (f"{_OPENING}_a_queue_in_an_image_layer_is_refused",),
        DURABLE,
    ),
    "who has the pid of another process goes on without LMDB's locks": Break(
        (
            Cut(
                _OPENING_CODE,
                "        **LEVELS[durability],\n",
                "        **LEVELS[durability],\n        lock=lock,\n",
            ),
            Cut(
                _OPENING_CODE,
                "def _open(path: Path, map_size: int, durability: str) -> lmdb.Environment:\n",
                "def _open(path, map_size, durability):\n"
                "    try:\n        return _open_so(path, map_size, durability, True)\n"
                "    except lmdb.LockError:\n"
                "        return _open_so(path, map_size, durability, False)\n\n\n"
                "def _open_so(path, map_size, durability, lock):\n",
            ),
        ),
        (
            _TWIN,
            f"{_NAMESPACES}_a_fork_whose_pid_is_that_of_another_one_elsewhere_is_refused",
        ),
        DURABLE,
    ),
    "the slot of a dead reader with our pid is kept": Break(
        (
            Cut(
                _OPENING_CODE,
                "    if any(line.split()[:1] == [mine] for line in env.readers().splitlines()):\n",
                "    if not mine:\n",
            ),
        ),
        (f"{_OPENING}_the_slot_of_a_dead_reader_with_our_own_pid_does_not_pin_pages",),
        DURABLE,
    ),
    "a holder that nobody may look at is dead": Break(
        (Cut(_HOLDERS_CODE, "return False  # another user's", "return True  # another user's"),),
        (f"{_HOLDERS}_a_holder_that_nobody_may_look_at_is_not_taken_for_dead",),
        DURABLE,
    ),
    "a fork's child goes on with its parent's open file": Break(
        (
            Cut(
                "repo/lmdb/environment.py",
                "        self._file.let_go_in_child()\n",
                "        pass\n",
            ),
        ),
        (
            f"{_FORKS}_a_fork_that_meets_the_lease_keeper_at_work_can_consume",
            f"{_NAMESPACES}_a_fork_whose_pid_is_that_of_another_one_elsewhere_is_refused",
        ),
        DURABLE,
    ),
    "what root makes stays root's": Break(
        (Cut("repo/lmdb/beside.py", "os.geteuid() == 0 and", "os.geteuid() < 0 and"),),
        (f"{_PROCESSES}_after_root_was_in_it_a_queue_is_its_owners_as_before[reserves]",),
        DURABLE,
    ),
    "what the group may do is not followed": Break(
        (Cut("repo/lmdb/beside.py", "data.st_mode & _OF_GROUP", "data.st_mode & 0"),),
        (f"{_PROCESSES}_a_queue_that_a_group_may_write_is_worked_on_by_all_of_it",),
        DURABLE,
    ),
}

DISK: Final = {
    "a failed commit leaves no doubt": Break(
        (
            Cut(
                "repo/lmdb/openfile.py",
                "            self.bell.doubt = True\n",
                "            pass\n",
            ),
        ),
        (f"{_FAILING}_after_a_commit_that_failed_the_heads_are_made_sure_of",),
        DURABLE,
    ),
    "a doubt is ended without the heads": Break(
        (
            Cut(
                "repo/lmdb/doubt.py",
                "            if os.pwrite(fd, head, at) != len(head):\n",
                "            if not head:\n",
            ),
        ),
        (f"{_FAILING}_after_a_commit_that_failed_the_heads_are_made_sure_of",),
        DURABLE,
    ),
    "whoever comes next does not sync the names of a new queue": Break(
        (Cut(_FILES, "            _sync_names(path)  # it may", "            pass  # it may"),),
        (f"{_FAILING}_a_queue_lasts_whose_maker_met_an_error",),
        DURABLE,
    ),
    "the ballast is not given up": Break(
        (
            Cut(
                _ROOM_CODE,
                "        self._sure = 0\n        try:\n            self._ballast.unlink()\n",
                "        return\n        try:\n            self._ballast.unlink()\n",
            ),
        ),
        (
            f"{_ROOM}_follow_up_jobs_on_a_full_disk_leave_their_parent_held",
            f"{_ROOM}_new_processes_can_work_a_full_disk_off",
        ),
        DURABLE,
    ),
    "an I/O error is taken for a full disk": Break(
        (Cut(_ROOM_CODE, " and self._free_bytes() < ALMOST_NOTHING", ""),),
        (f"{_ROOM}_an_io_error_is_a_full_disk_only_where_there_is_no_room",),
        DURABLE,
    ),
    "on a full disk nothing is forgotten before its time": Break(
        (Cut(_ROOM_CODE, "short = self._failed or _live_pages", "short = False and _live_pages"),),
        (f"{_ROOM}_on_a_full_disk_finished_jobs_make_room_for_those_that_are_not",),
        DURABLE,
    ),
    "on a full disk as much falls due at once as ever": Break(
        (
            Cut(
                "repo/transactional.py",
                "return min(limit, SHORT_STEP) if tx.is_short() else limit",
                "return limit",
            ),
        ),
        (f"{_ROOM}_where_room_is_short_one_job_after_the_other_falls_due",),
        DURABLE,
    ),
    "a ballast that fails for a moment costs finished jobs": Break(
        (
            Cut(
                _ROOM_CODE,
                "return error.errno == errno.ENOSPC and self._free_bytes() < BALLAST",
                "return True",
            ),
        ),
        (f"{_ROOM}_no_finished_job_is_forgotten_for_a_ballast_that_fails_on_a_disk_with_room",),
        DURABLE,
    ),
    "on a full disk what the last commit freed cannot be had": Break(
        (
            Cut(
                _TRANSACTIONS, "                self._commit([], rings)\n", "                pass\n"
            ),
        ),
        (f"{_ROOM}_on_a_full_disk_what_the_last_commit_freed_can_be_used_at_once",),
        DURABLE,
    ),
    "the error of a loop's end takes the place of the first": Break(
        (
            Cut(
                "service/consumer.py",
                "                    if not unknown:\n                        raise\n",
                "                    raise\n",
            ),
        ),
        ("service/test_unknown.py::test_a_loop_that_ends_by_an_unknown_outcome_says_so",),
    ),
}

ALL: Final = {**CLOCKS, **PROCESSES, **DISK}
