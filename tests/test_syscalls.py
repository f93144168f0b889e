"""What a call does that keeps the interpreter's lock, over real sockets."""

from __future__ import annotations

import errno
import os
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from llmgateway import syscalls


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_gives_what_has_arrived(pair):
    """All of it in one piece, nothing at the end, and None meanwhile."""
    ours, theirs = pair
    assert syscalls.receive(ours.fileno()) is None

    theirs.sendall(b"one ")
    theirs.sendall(b"two")
    assert b"one two" == syscalls.receive(ours.fileno())
    assert syscalls.receive(ours.fileno()) is None

    theirs.close()
    assert b"" == syscalls.receive(ours.fileno())


def test_takes_what_there_is_room_for(pair):
    """A blocking socket does not make it wait; what the other side gets is the beginning."""
    ours, theirs = pair
    data = os.urandom(4 * syscalls.SENT_AT_ONCE)
    sent = 0
    while taken := syscalls.send(ours.fileno(), data[sent:]):
        assert taken <= syscalls.SENT_AT_ONCE
        sent += taken

    got = b""
    while piece := syscalls.receive(theirs.fileno()):
        got += piece
    assert data[:sent] == got


def test_a_quiet_connection_is_open_and_has_nothing_to_say(pair):
    """What has arrived stays there to be received."""
    ours, theirs = pair
    assert syscalls.is_quiet(ours.fileno())
    theirs.sendall(b"x")
    assert not syscalls.is_quiet(ours.fileno())
    assert b"x" == syscalls.receive(ours.fileno())
    theirs.close()
    assert not syscalls.is_quiet(ours.fileno())
    ours.close()
    assert not syscalls.is_quiet(ours.fileno())


def test_errors_are_python_s_own(pair):
    """Whoever catches what sockets raise catches these."""
    ours, theirs = pair
    theirs.close()
    with pytest.raises(BrokenPipeError):
        syscalls.send(ours.fileno(), b"x")
    for call in (lambda: syscalls.send(-1, b"x"), lambda: syscalls.receive(-1)):
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            call()
        assert errno.EBADF == caught.value.errno


def test_a_reset_is_no_end():
    """What is lost must not look complete."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        theirs, _ = listener.accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        theirs.close()
        with pytest.raises(ConnectionResetError):
            syscalls.receive(ours.fileno())


def echo(name: str, times: int) -> bool:
    """Send and receive *times* over; whether it was the same every time."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for turn in range(times):
            text = f"{name}:{turn}".encode()
            syscalls.send(theirs.fileno(), text)
            if text != syscalls.receive(ours.fileno()):
                return False
    return True


def test_threads_do_not_get_each_other_s_bytes():
    """Each has its own place for what it receives."""
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda number: echo(f"thread {number}", 500), range(8)))


def test_a_child_does_not_get_its_parent_s_bytes():
    """The place is memory that a fork does not share."""
    assert echo("before the fork", 1)
    child = os.fork()
    right = echo(f"process {child}", 20_000)
    if child == 0:
        os._exit(0 if right else 1)
    _, status = os.waitpid(child, 0)
    assert (True, 0) == (right, status)
