"""The way to Redis, when all is well and when a connection is not."""

from __future__ import annotations

import logging
import os
import select
import socket
import ssl
import threading
from contextlib import ExitStack, closing, contextmanager, suppress

import pytest
import redis

from llmgateway.errors import StoreUnavailable
from llmgateway.stores.redis.connection import RedisConnection
from llmgateway.stores.redis.counters import RedisCounters
from tests.certificates import make_certificate
from tests.servers import free_port, listening, wait_until
from tests.stores.contract import at_once
from tests.stores.counter_contract import reserve, used, window


@pytest.fixture
def connect(clock):
    """Open a way to a server."""
    with ExitStack() as stack:

        def connect(url, **options):
            connection = RedisConnection(url, **{"timeout": 5, "clock": clock, **options})
            return stack.enter_context(closing(connection))

        yield connect


def ask(connection, *command):
    return connection.ask(lambda session: session.command(*command))


class ScriptedServer:
    """A Redis that takes greetings and proofs of writing as usual, and with other commands does what the test says."""

    def __init__(self, act):
        self._act = act
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._peers: list[socket.socket] = []
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self.commands: list[bytes] = []
        """Those of all connections."""
        self.proofs = 0
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    @property
    def connections(self):
        return len(self._peers)

    def end_all(self):
        """End all connections."""
        for peer in self._peers:
            with suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        self.end_all()

    def _listen(self):
        with suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                self._peers.append(peer)
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer):
        with peer, suppress(OSError):
            while command := peer.recv(65536):
                if b":writable" in command:
                    self.proofs += 1
                    peer.sendall(b"+OK\r\n")
                elif b"SETINFO" in command:
                    peer.sendall(b"+OK\r\n")
                elif b"PING" in command:
                    peer.sendall(b"+PONG\r\n")
                else:
                    self.commands.append(command)
                    if self._act(peer, len(self.commands)) == "end":
                        return


@pytest.fixture
def serve():
    """Start a server that does *act(peer, number of the command)*; "end" ends the connection."""
    with ExitStack() as stack:
        yield lambda act: stack.enter_context(closing(ScriptedServer(act)))


class TestLostConnections:
    def test_in_the_middle_of_an_answer(self, serve, connect):
        """The command is repeated on a new connection, and nothing of the first answer is left."""

        def break_off(peer, number):
            peer.sendall(b"*2\r\n$3\r\none\r\n" if number == 1 else b"*2\r\n$3\r\ntwo\r\n$3\r\ntwo\r\n")
            return "end" if number == 1 else None

        server = serve(break_off)

        assert [b"two", b"two"] == ask(connect(server.url), "ANY")
        assert (2, 2, 2) == (len(server.commands), server.connections, server.proofs)

    def test_again_and_again(self, serve, connect, clock):
        """A server that always breaks off is away: each command is sent twice, with a proof in front of each."""

        def break_off(peer, _):
            peer.sendall(b"$10\r\none")
            return "end"

        server = serve(break_off)
        connection = connect(server.url)

        for times in (1, 2, 3):
            with pytest.raises(StoreUnavailable, match="ConnectionError"):
                ask(connection, "ANY")
            assert (2 * times, 2 * times) == (len(server.commands), server.proofs)
            clock.advance(1)

    def test_while_they_were_idle(self, serve, connect):
        """A connection that has ended meanwhile is no outage."""
        server = serve(lambda peer, number: peer.sendall(b"+%d\r\n" % number))
        connection = connect(server.url)
        assert b"1" == ask(connection, "ANY")
        server.end_all()

        assert b"2" == ask(connection, "ANY")
        assert (2, 2) == (len(server.commands), server.connections)

    def test_which_say_more_than_they_were_asked(self, serve, connect):
        """What nobody asked for is not the answer to the next command."""
        server = serve(lambda peer, number: peer.sendall(b"+%d\r\n+surprise\r\n" % number))
        connection = connect(server.url)

        assert [b"1", b"2"] == [ask(connection, "ANY") for _ in range(2)]
        assert (2, 2) == (len(server.commands), server.connections)

    def test_are_given_up_all_at_once(self, own_redis, connect):
        """However many threads meet a Redis that was restarted, one dials for all, and each has its own answer."""
        connection = connect(own_redis.url)
        words = [str(number) for number in range(20)]
        assert [word.encode() for word in words] == at_once(
            *(lambda word=word: ask(connection, "ECHO", word) for word in words)
        )
        own_redis.restart()

        answers = at_once(*(lambda word=word: ask(connection, "ECHO", word) for word in words))

        assert [word.encode() for word in words] == answers

    def test_of_many_threads_cost_one_attempt(self, connect):
        """Where nothing listens each thread has its answer at once, and the reason is the same for all."""
        connection = connect(f"redis://127.0.0.1:{free_port()}")

        def away():
            with pytest.raises(StoreUnavailable) as caught:
                ask(connection, "PING")
            return "does not serve" in str(caught.value)

        assert [True] * 20 == at_once(*[away] * 20)

    def test_of_a_refused_login_are_not_repeated(self, own_redis, connect):
        """A wrong password is not tried twice in a row."""
        connection = connect(f"redis://:wrong@127.0.0.1:{own_redis.port}")
        with pytest.raises(StoreUnavailable, match="AuthenticationError"):
            ask(connection, "PING")

        with redis.Redis.from_url(own_redis.url) as client:
            assert 1 == client.info("commandstats")["cmdstat_auth"]["failed_calls"]


class TestTimeOuts:
    @pytest.mark.parametrize("beginning", [b"", b"$5\r\nhal"])
    def test_are_not_repeated(self, serve, connect, beginning):
        """Neither before nor in the middle of an answer: whoever waits has waited long enough."""
        server = serve(lambda peer, number: peer.sendall(beginning) if beginning else None)

        with pytest.raises(StoreUnavailable, match=r"^Redis does not serve \(TimeoutError\)"):
            ask(connect(server.url, timeout=0.2), "ANY")

        assert (1, 1) == (len(server.commands), server.connections)

    def test_leave_no_answer_for_the_next(self, serve, connect, clock):
        """What comes too late is not taken for what the next one asked."""
        late = threading.Event()

        def delay(peer, number):
            if number == 1:
                late.wait(10)
            peer.sendall(b"+%d\r\n" % number)

        server = serve(delay)
        connection = connect(server.url, timeout=0.2)
        with pytest.raises(StoreUnavailable):
            ask(connection, "ANY")
        late.set()
        clock.advance(1)

        assert [b"2", b"3", b"4"] == [ask(connection, "ANY") for _ in range(3)]

    def test_spare_those_who_come_next(self, serve, connect):
        """For a while nobody else waits for a server that hangs."""
        server = serve(lambda peer, number: None)
        counters = RedisCounters(connect(server.url, timeout=0.2))
        with pytest.raises(StoreUnavailable, match="TimeoutError"):
            reserve(counters, window())

        with pytest.raises(StoreUnavailable, match=r"^Redis does not serve. Try"):
            reserve(counters, window())

        assert 1 == len(server.commands)


class TestReasons:
    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (b"-READONLY You can't write against a read only replica.", "it refuses writes, as a replica does"),
            (b"-OOM command not allowed when used memory > 'maxmemory'.", "it refuses writes, its memory is full"),
            (b"-MISCONF Redis is configured to save RDB snapshots, but", "it refuses writes, it cannot save them"),
            (b"-NOREPLICAS Not enough good replicas to write.", r"\(NOREPLICAS\)"),
            (
                b"-ERR Error running script (call to f_1): @user_script:1: -READONLY You",
                "it refuses writes, as a replica",
            ),
            (b"-MOVED 12182 10.0.0.1:6379", r"whose URL begins with redis\+cluster://"),
            (b"-unknown command AUTH with secret", r"\(ResponseError\)"),
        ],
    )
    def test_are_told(self, serve, connect, answer, reason, caplog):
        """What Redis refuses is said so that an operator knows where to look; its own text is not shown."""
        server = serve(lambda peer, number: peer.sendall(answer + b"\r\n"))

        with pytest.raises(StoreUnavailable, match=reason) as caught:
            ask(connect(server.url), "ANY")

        assert "secret" not in str(caught.value) + caplog.text
        assert [logging.WARNING] == [record.levelno for record in caplog.records if record.levelno > logging.INFO]


class TestWays:
    def test_over_a_socket_of_this_host(self, own_redis, connect):
        """A Redis on the same host may be asked without TCP, with a password too."""
        connection = connect(own_redis.unix_url)
        counters = RedisCounters(connection)

        reserve(counters, window(3))

        assert 3 == used(counters, window())
        assert "redis.sock" in str(ask(connection, "CLIENT LIST"))

    def test_over_tls(self, own_redis, connect, certificate):
        """With a certificate that is checked."""
        data = os.urandom(1_000_000)
        with tls_in_front_of(own_redis.port, certificate) as port:
            url = own_redis.url.replace("redis://", "rediss://").replace(str(own_redis.port), str(port))
            connection = connect(f"{url}?ssl_ca_certs={certificate}")
            counters = RedisCounters(connection)

            reserve(counters, window(3))
            assert 3 == used(counters, window())
            assert data == ask(connection, "ECHO", data)
            with pytest.raises(StoreUnavailable):
                ask(connect(url), "PING")

    def test_to_a_database(self, own_redis, connect):
        """The number in the URL."""
        ask(connect(own_redis.url.removesuffix("0") + "7"), "SET", "here", "1")

        with redis.Redis.from_url(own_redis.url.removesuffix("0") + "7") as client:
            assert b"1" == client.get("here")

    def test_know_a_script_that_the_server_forgot(self, own_redis, connect):
        """A script is loaded again into a server that has lost it."""
        counters = RedisCounters(connect(own_redis.url))
        reserve(counters, window(3))
        with redis.Redis.from_url(own_redis.url) as client:
            client.script_flush()

        reserve(counters, window(3))

        assert 6 == used(counters, window())

    def test_close(self, own_redis, connect):
        """Nothing is left, and the next question opens a new one."""
        connection = connect(own_redis.url)
        at_once(*[lambda: ask(connection, "PING")] * 5)
        with redis.Redis.from_url(own_redis.url) as client:
            connection.close()
            wait_until(lambda: 1 == len(client.client_list()))

        assert ask(connection, "PING")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that only itself vouches for, with its key."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@contextmanager
def tls_in_front_of(port, certificate):
    """A port that speaks TLS and leads to *port*: the Redis that comes with the tests cannot do it itself."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)

    def carry(client):
        with (
            suppress(OSError),
            client,
            tls.wrap_socket(client, server_side=True) as ours,
            socket.create_connection(("127.0.0.1", port)) as theirs,
        ):
            while True:
                ready = [ours] if ours.pending() else select.select([ours, theirs], [], [])[0]
                for source, sink in ((ours, theirs), (theirs, ours)):
                    if source in ready:
                        data = source.recv(65536)
                        if not data:
                            return
                        sink.sendall(data)

    with listening(carry) as own_port:
        yield own_port
