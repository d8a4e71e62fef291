import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobq.clock import EARLIEST_US, Clock, ManualClock, SystemClock, _Namespace, to_us, utc
from jobq.errors import InvalidValue

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(wall_us=5_000_000, boot_us=100_000)


def test_the_wall_clock_is_that_of_the_system() -> None:
    before = time.time_ns() // 1000
    read = SystemClock().wall_us()
    after = time.time_ns() // 1000

    assert before <= read <= after


def test_the_boot_clock_never_goes_back() -> None:
    clock = SystemClock()

    reads = [clock.boot_us() for _ in range(1000)]

    assert reads == sorted(reads)
    assert reads[0] > 0


@on_linux
def test_the_boot_clock_is_the_one_that_counts_time_asleep() -> None:
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    read = SystemClock().boot_us()
    after = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000

    assert before <= read <= after


@on_linux
def test_what_a_time_namespace_adds_to_the_boot_clock_is_taken_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Real ones are in `tests/torture/processes`, where there is leave to make them."""
    offsets = "monotonic        -5         1\nboottime   -1000000 250000000\n"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: offsets)

    assert _Namespace().look() == -1_000_000 * 10**9 + 250_000_000


@on_linux
def test_a_kernel_without_time_namespaces_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)

    assert _Namespace().look() == 0


@on_linux
@pytest.mark.parametrize("text", ["", "no id", "77b2ff57-512f-43e0"])
def test_what_is_no_boot_id_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)

    with pytest.raises(OSError, match="expected the id of a boot"):
        SystemClock().boot_id()


@on_linux
def test_the_boot_id_is_the_kernels() -> None:
    digits = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")

    assert SystemClock().boot_id() == bytes.fromhex(digits)


def test_all_clocks_of_a_machine_tell_the_same_boot() -> None:
    clock = SystemClock()

    assert len(clock.boot_id()) == 16
    assert clock.boot_id() == clock.boot_id() == SystemClock().boot_id()


def test_a_manual_clock_stands_until_it_is_moved(clock: ManualClock) -> None:
    assert (clock.wall_us(), clock.boot_us()) == (5_000_000, 100_000)
    assert (clock.wall_us(), clock.boot_us()) == (5_000_000, 100_000)


def test_time_passes_on_both_clocks(clock: ManualClock) -> None:
    clock.advance(0.25)

    assert (clock.wall_us(), clock.boot_us()) == (5_250_000, 350_000)


def test_stepping_the_wall_clock_leaves_the_boot_clock_alone(clock: ManualClock) -> None:
    clock.step_wall(3600)
    clock.step_wall(-3601)

    assert (clock.wall_us(), clock.boot_us()) == (4_000_000, 100_000)


def test_time_does_not_pass_backwards(clock: ManualClock) -> None:
    with pytest.raises(InvalidValue, match="step_wall"):
        clock.advance(-1)

    assert (clock.wall_us(), clock.boot_us()) == (5_000_000, 100_000)


def test_no_clock_shows_a_time_before_1970(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.step_wall(-7)
    assert clock.wall_us() == EARLIEST_US
    clock.step_wall(7)
    assert clock.wall_us() == 5_000_000

    monkeypatch.setattr(time, "time_ns", lambda: -(10**18))
    assert SystemClock().wall_us() == EARLIEST_US


def test_a_reboot_brings_a_new_id_and_begins_the_boot_clock_again(clock: ManualClock) -> None:
    clock.advance(10**6)
    wall_us = clock.wall_us()
    ids = [clock.boot_id()]
    for _ in range(300):
        clock.reboot()
        ids.append(clock.boot_id())

    assert len(set(ids)) == 301
    assert {len(boot_id) for boot_id in ids} == {16}
    assert clock.boot_us() == ManualClock.JUST_BOOTED_US
    assert clock.wall_us() == wall_us


def test_a_manual_clock_needs_no_arguments() -> None:
    clock = ManualClock()

    assert utc(clock.wall_us()).year == 2023
    assert clock.boot_us() > 0


def test_no_step_is_lost_between_threads(clock: ManualClock) -> None:
    def advance() -> None:
        for _ in range(5000):
            clock.advance(0.000001)

    threads = [threading.Thread(target=advance) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (clock.wall_us(), clock.boot_us()) == (5_020_000, 120_000)


def test_both_are_clocks() -> None:
    clocks: list[Clock] = [SystemClock(), ManualClock()]

    assert all(isinstance(clock.wall_us(), int) for clock in clocks)


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_in_microseconds_is_exact(moment: datetime) -> None:
    us = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)

    assert utc(us) == moment
    assert utc(us).tzinfo is UTC


@pytest.mark.parametrize("us", [10**18, -(10**17)])
def test_a_time_that_no_datetime_holds_is_an_overflow(us: int) -> None:
    with pytest.raises(OverflowError):
        utc(us)


@pytest.mark.parametrize(
    ("seconds", "us"),
    [(0, 0), (1, 1_000_000), (0.1, 100_000), (1e-6, 1), (4e-7, 0), (-2.5, -2_500_000)],
)
def test_seconds_become_the_nearest_microsecond(seconds: float, us: int) -> None:
    assert to_us(seconds) == us
    assert isinstance(to_us(seconds), int)


@given(st.integers(-(10**15), 10**15))
def test_a_number_of_microseconds_survives_the_way_through_seconds(us: int) -> None:
    assert to_us(us / 1_000_000) == us


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), float("-inf")])
def test_seconds_that_are_no_number_are_refused(seconds: float) -> None:
    with pytest.raises(InvalidValue, match="finite"):
        to_us(seconds)
