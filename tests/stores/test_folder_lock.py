"""The lock on the instance folder: one process alone, or several."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from llmgateway.stores.folder_lock import FolderLock


@pytest.fixture
def lock(tmp_path):
    return FolderLock(tmp_path)


@pytest.fixture
def other(tmp_path):
    return FolderLock(tmp_path)


def test_one_has_it_alone(lock, other):
    """No other process can hold or share the lock until it is released."""
    assert lock.acquire()
    assert not other.acquire()
    assert not other.share()

    lock.close()

    assert other.share()


def test_several_share_it(lock, other, tmp_path):
    """While it is shared, no process can hold the lock exclusively."""
    assert lock.share()
    assert lock.share()
    assert other.share()
    another = FolderLock(tmp_path)
    lock.close()
    assert not another.acquire()

    other.close()

    assert another.acquire()


def test_ends_with_its_process(lock, tmp_path):
    """The lock ends when its process is killed."""
    program = f"""
from pathlib import Path
from llmgateway.stores.folder_lock import FolderLock
lock = FolderLock(Path({str(tmp_path)!r}))
print(lock.acquire(), flush=True)
input()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert b"True\n" == process.stdout.readline()
        assert not lock.acquire()
        process.kill()

    assert lock.acquire()


def test_a_child_has_not_got_it(lock, other):
    """A child process does not keep the lock after its parent has released it."""
    assert lock.acquire()
    begun, begin = os.pipe()
    ended, end = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(begin, b".")
        os.read(ended, 1)
        os._exit(0)
    try:
        os.read(begun, 1)
        assert not other.acquire()
        lock.close()
        assert other.acquire()
    finally:
        os.write(end, b".")
        os.waitpid(child, 0)
        for descriptor in (begun, begin, ended, end):
            os.close(descriptor)


def test_without_a_folder_nobody_has_it(tmp_path):
    """The lock cannot be acquired if the folder does not exist or has no locks."""
    lock = FolderLock(tmp_path / "missing")

    assert not lock.acquire()
    assert not lock.share()
