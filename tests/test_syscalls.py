"""What a call does that keeps the interpreter's lock, over real sockets and files."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import threading

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
    for call in (lambda: syscalls.send(-1, b"x"), lambda: syscalls.receive(-1), lambda: syscalls.write(-1, b"x")):
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


def test_writes_to_the_end_of_a_file(tmp_path):
    """As the descriptor was opened for."""
    descriptor = os.open(tmp_path / "file", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    assert (4, 4) == (syscalls.write(descriptor, b"one "), syscalls.write(descriptor, b"two "))
    os.close(descriptor)
    assert b"one two " == (tmp_path / "file").read_bytes()


def test_a_full_disk_says_so():
    """As os.write does."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError, match="No space left"):
        syscalls.write(descriptor, b"x")
    os.close(descriptor)


def test_threads_do_not_get_each_other_s_bytes():
    """Each has its own place for what it receives, a forked child too."""
    pairs = [socket.socketpair() for _ in range(8)]
    wrong = []

    def echo(number: int, ours: socket.socket, theirs: socket.socket) -> None:
        for turn in range(500):
            text = b"%d:%d" % (number, turn)
            syscalls.send(theirs.fileno(), text)
            got = syscalls.receive(ours.fileno())
            if got != text:
                wrong.append((text, got))

    threads = [threading.Thread(target=echo, args=(number, *pair)) for number, pair in enumerate(pairs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for pair in pairs:
        for end in pair:
            end.close()
    assert not wrong


def test_a_child_does_not_share_its_parent_s_space():
    """The memory is private: what a child receives is not seen where the parent's bytes were."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"parent")
        assert b"parent" == syscalls.receive(ours.fileno())
        child = os.fork()
        if child == 0:
            theirs.sendall(b"child!")
            syscalls.receive(ours.fileno())
            os._exit(0)
        os.waitpid(child, 0)
        assert b"parent" == syscalls._space.memory[:6]


def test_they_keep_the_interpreter_s_lock():
    """What they are for. Seen from outside it is only a matter of cost, which benchmarks show."""
    assert type(syscalls._C) is ctypes.PyDLL
