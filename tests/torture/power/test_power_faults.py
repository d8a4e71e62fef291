"""The bench proves itself: the store is broken on purpose, and each time the bench says so."""

import signal
from pathlib import Path
from typing import Final

import pytest

from jobq.repo.base import Store
from tests.crash.processes import Silent, Start
from tests.crash.repairs import REPAIRS
from tests.torture.power import bench, copier, faults
from tests.torture.power.bench import (
    Recorded,
    judge,
    record_backups,
    record_case,
    record_story,
)
from tests.torture.power.cases import UPKEEP
from tests.torture.power.examiner import Sift
from tests.torture.power.faults import Fault
from tests.torture.power.states import Cut
from tests.torture.power.story import Plot, StoryOracle
from tests.torture.power.verdict import Kind, Tally

PLOT: Final = Plot(seed=7, length=8)
RELAXED: Final = PLOT._replace(durability="relaxed")


def seen(start: Start, fault: Fault, path: Path, plot: Plot = PLOT) -> Tally:
    """What the bench says of a story told to a broken store."""
    recorded = record_story(start, plot, path / "recorded", fault)
    return judge(start, recorded, Sift(4096, 10, seed=1), path / "judged")


def test_a_whole_store_passes(start: Start, quick_path: Path) -> None:
    tally = seen(start, faults.none, quick_path)

    assert tally.states > 100
    assert not tally.faults


LOST, SHUT, WRONG = Kind.LOST, Kind.SHUT, Kind.WRONG


@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        (faults.lying_disk, {LOST, SHUT}),
        (faults.no_data_sync, {SHUT}),
        (faults.no_meta_sync, {LOST}),
        (faults.full_is_relaxed, {LOST}),
        (faults.full_is_unsafe, {LOST, SHUT}),
        (faults.synced_now_and_then, {LOST, SHUT}),
        (faults.acknowledged_before_commit, {LOST}),
        (faults.two_commits, {WRONG}),
        (faults.no_directory_sync, {LOST}),
        (faults.no_file_sync, {SHUT}),
        (faults.made_in_place, {SHUT}),
    ],
)
def test_a_broken_store_is_noticed(
    fault: Fault, kinds: set[Kind], start: Start, quick_path: Path
) -> None:
    assert kinds <= seen(start, fault, quick_path).kinds.keys()


def test_it_is_noticed_if_relaxed_keeps_too_little(start: Start, quick_path: Path) -> None:
    assert not seen(start, faults.none, quick_path / "whole", RELAXED).faults
    assert seen(start, faults.relaxed_is_unsafe, quick_path / "broken", RELAXED).kinds[Kind.LOST]


def test_it_is_noticed_if_new_directories_above_a_queue_are_not_synced(
    start: Start, quick_path: Path
) -> None:
    plot = PLOT._replace(length=1, depth=1)

    assert not seen(start, faults.none, quick_path / "whole", plot).faults
    assert seen(start, faults.no_sync_above, quick_path / "broken", plot).kinds[Kind.LOST]


@pytest.mark.parametrize("name", UPKEEP)
@pytest.mark.parametrize(
    ("fault", "kind"), [(faults.no_directory_sync, LOST), (faults.no_sync_of_what_replaces, SHUT)]
)
def test_it_is_noticed_if_a_file_that_replaces_a_queue_does_not_last(
    name: str, fault: Fault, kind: Kind, start: Start, quick_path: Path
) -> None:
    recorded = record_case(start, name, quick_path / "recorded", fault)

    assert judge(start, recorded, Sift(4096, 16, seed=1), quick_path / "judged").kinds[kind]


@pytest.mark.storm
@pytest.mark.parametrize("name", REPAIRS)
@pytest.mark.parametrize(
    ("fault", "kind"),
    [(faults.acknowledged_before_commit, LOST), (faults.no_data_sync, SHUT)],
)
def test_it_is_noticed_if_a_repair_does_not_last(
    name: str, fault: Fault, kind: Kind, start: Start, quick_path: Path
) -> None:
    recorded = record_case(start, name, quick_path / "recorded", fault)

    assert judge(start, recorded, Sift(4096, 16, seed=1), quick_path / "judged").kinds[kind]


@pytest.mark.parametrize(
    ("way", "fault", "broken", "kind"),
    [
        ("nameless", faults.none, faults.copy_named_first, SHUT),
        ("nameless", faults.none, faults.names_above_copy_not_synced, LOST),
        *(
            pytest.param(*broken, marks=pytest.mark.storm)
            for broken in (
                ("nameless", faults.none, faults.copy_not_synced, SHUT),
                ("hidden", faults.none, faults.copy_made_in_place, SHUT),
                ("nameless", faults.none, faults.copy_name_not_synced, LOST),
                ("renamed", faults.none, faults.copy_name_not_synced, LOST),
                ("nameless", faults.backup_acknowledged_at_once, copier.none, LOST),
                ("nameless", faults.backup_of_long_ago, copier.none, LOST),
            )
        ),
    ],
)
def test_it_is_noticed_if_a_backup_is_not_whole_or_does_not_last(
    way: str, fault: Fault, broken: Fault, kind: Kind, start: Start, quick_path: Path
) -> None:
    plot = PLOT._replace(length=11 if fault is faults.none else 22)  # one backup, or two
    recorded, _ = record_backups(start, plot, quick_path / "recorded", way, fault, broken)

    assert judge(start, recorded, Sift(4096, 16, seed=1), quick_path / "judged").kinds[kind]


def test_the_flush_before_a_new_queue_is_moved_in_is_what_keeps_it_whole(
    start: Start, quick_path: Path
) -> None:
    assert not seen(start, faults.built_without_sync, quick_path).faults


def test_a_write_that_the_recorder_missed_is_noticed(start: Start, quick_path: Path) -> None:
    with pytest.raises(AssertionError, match="not recorded"):
        seen(start, faults.unrecorded, quick_path)


class Asleep(StoryOracle):
    """Never comes to an end."""

    def open(self, path: Path, cut: Cut) -> Store:
        signal.pause()
        return super().open(path, cut)


def test_who_judges_too_slowly_was_not_killed_by_what_it_read(
    start: Start, quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, _ = record_story(start, PLOT._replace(length=1), quick_path / "recorded")
    monkeypatch.setattr(bench, "PATIENCE_S", 0.1)

    with pytest.raises(Silent):
        judge(start, Recorded(record, Asleep(PLOT, [])), Sift(4096, 1, 1), quick_path / "judged")
