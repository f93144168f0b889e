"""Wrong admin keys are counted by source, for all processes together, in a file of a fixed size."""

from __future__ import annotations

import multiprocessing
import stat
from pathlib import Path
from typing import Any

import pytest

from llmgateway.accounts.attempts import ATTEMPTS, WINDOW_SECONDS, WrongKeys, source_of
from tests.conftest import Clock
from tests.stores.contract import at_once

ADDRESS = "10.0.0.1"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "wrong-admin-keys"


@pytest.fixture
def wrong_keys(path, clock):
    return WrongKeys(path, clock=clock)


def add(wrong_keys: WrongKeys, times: int, address: str = ADDRESS) -> list[int]:
    """Count wrong keys; returns how long the address had to wait each time."""
    return [wrong_keys.add(address)[0] for _ in range(times)]


MANY = [f"10.2.0.{number}" for number in range(100)]


def add_in_a_process(path: Path, clock: Clock, barrier: Any, counted: Any) -> None:
    """Send as many wrong keys from each address as are allowed, and say how many were counted."""
    wrong_keys = WrongKeys(path, clock=clock)
    barrier.wait(60)
    counted.put(sum(add(wrong_keys, ATTEMPTS, address).count(0) for address in MANY))


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.17", "192.0.2.17"),
        ("::ffff:192.0.2.17", "192.0.2.17"),
        ("::FFFF:c000:0211", "192.0.2.17"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", "unknown"),
        ("a-proxy-without-a-name", "unknown"),
    ],
)
def test_sources(address, source):
    """One source is an IPv4 address, however it is written, or what one customer of a provider has of IPv6."""
    assert source == source_of(address)


def test_counts_up_to_the_limit(wrong_keys):
    """The first ones are counted, the next one has to wait for the first to be a minute ago."""
    assert [(0, number) for number in range(1, ATTEMPTS + 1)] == [wrong_keys.add(ADDRESS) for _ in range(ATTEMPTS)]
    assert (WINDOW_SECONDS + 1, ATTEMPTS) == wrong_keys.add(ADDRESS)
    assert WINDOW_SECONDS + 1 == wrong_keys.wait(ADDRESS)
    assert 0 == wrong_keys.wait("10.0.0.2")


def test_addresses_of_one_network_are_one(wrong_keys):
    """Whoever takes another address of the same /64 for each guess is not faster."""
    waits = [wrong_keys.add(f"2001:db8::{number:x}")[0] for number in range(ATTEMPTS + 1)]

    assert [0] * ATTEMPTS == waits[:-1]
    assert waits[-1] > 0
    assert 0 == wrong_keys.wait("2001:db8:0:1::1")


def test_looking_counts_nothing(wrong_keys):
    """Somebody who asks how long to wait does not wait longer for it."""
    add(wrong_keys, ATTEMPTS - 1)
    for _ in range(ATTEMPTS):
        assert 0 == wrong_keys.wait(ADDRESS)


def test_is_shared_by_processes(wrong_keys, path, clock):
    """Each process has some of the attempts that all of them have together."""
    spawn = multiprocessing.get_context("spawn")
    barrier, counted = spawn.Barrier(2), spawn.Queue()
    processes = [spawn.Process(target=add_in_a_process, args=(path, clock, barrier, counted)) for _ in range(2)]
    for process in processes:
        process.start()
    total = sum(counted.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()

    assert len(MANY) * ATTEMPTS == total
    assert all(wrong_keys.wait(address) for address in MANY)


def test_is_shared_by_threads(wrong_keys):
    """Guessing in parallel is not faster."""
    waits = at_once(*[lambda: wrong_keys.add(ADDRESS)[0]] * (3 * ATTEMPTS))

    assert ATTEMPTS == waits.count(0)


def test_has_a_fixed_size(wrong_keys, path):
    """Whoever has many addresses fills neither the disk nor the memory."""
    wrong_keys.add(ADDRESS)
    size = path.stat().st_size
    for number in range(5000):
        wrong_keys.add(f"10.1.{number // 256}.{number % 256}")

    assert size == path.stat().st_size < 400_000
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


def test_who_was_quiet_for_longest_is_forgotten_first(wrong_keys, clock):
    """With more addresses than places, those that are busy stay."""
    add(wrong_keys, ATTEMPTS)
    clock.advance(1)
    for number in range(500):
        wrong_keys.add(f"10.1.{number // 256}.{number % 256}")

    assert wrong_keys.wait(ADDRESS) > 0


@pytest.mark.parametrize("broken", ["nothing", "a folder", "another edition's file"])
def test_counts_whatever_has_become_of_the_file(path, clock, caplog, broken):
    """Without a usable file the process counts in its memory, and says so once; a file of another size is replaced."""
    wrong_keys = WrongKeys(path / "no-folder" if broken == "nothing" else path, clock=clock)
    if broken == "a folder":
        path.mkdir()
    elif broken == "another edition's file":
        path.write_bytes(b"x" * 100)

    waits = add(wrong_keys, ATTEMPTS + 1)

    assert [0] * ATTEMPTS == waits[:-1]
    assert waits[-1] > 0
    assert (broken != "another edition's file") == len(caplog.records)


def test_a_file_that_is_removed_meanwhile_is_made_again(wrong_keys, path):
    """An operator who cleans up does no harm."""
    wrong_keys.add(ADDRESS)
    path.unlink()

    assert (0, 1) == wrong_keys.add(ADDRESS)


def test_a_clock_that_is_set_back_locks_nobody_out(path):
    """Times that have not come yet do not count."""
    clock = Clock()
    wrong_keys = WrongKeys(Path(path), clock=clock)
    add(wrong_keys, ATTEMPTS)
    clock.advance(-3600)

    assert 0 == wrong_keys.wait(ADDRESS)
