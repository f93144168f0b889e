"""How commands reach Redis and answers come back, when all is well and when a connection is not."""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
from contextlib import ExitStack, closing, contextmanager, suppress

import pytest
import redis

from llmgateway import syscalls
from llmgateway.errors import StoreUnavailable
from llmgateway.stores.redis.connection import RedisConnection
from llmgateway.stores.redis.counters import RedisCounters
from tests.certificates import make_certificate
from tests.servers import PASSWORD, listening, wait_until
from tests.stores.contract import at_once
from tests.stores.counter_contract import reserve, used, window


@pytest.fixture
def connect():
    """Open a way to a server."""
    with ExitStack() as stack:
        yield lambda url, **options: stack.enter_context(closing(RedisConnection(url, **{"timeout": 5, **options})))


@pytest.fixture
def connection(connect, redis_server):
    return connect(redis_server.url)


class ScriptedServer:
    """A Redis that answers greetings and signs of life as usual, and to other commands does what the test says."""

    def __init__(self, act):
        self._act = act
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._peers: list[socket.socket] = []
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self.commands: list[bytes] = []
        """Those of all connections, but for greetings."""
        self.signs_of_life = 0
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    @property
    def connections(self):
        return len(self._peers)

    def to_all(self, data):
        for peer in self._peers:
            with suppress(OSError):
                peer.sendall(data) if data else peer.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        self.to_all(b"")

    def _listen(self):
        with suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                self._peers.append(peer)
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer):
        with peer, suppress(OSError):
            while command := peer.recv(65536):
                if b"PING" in command:
                    self.signs_of_life += 1
                    peer.sendall(b"+PONG\r\n")
                    continue
                if b"SETINFO" in command:
                    peer.sendall(b"+OK\r\n")
                    continue
                self.commands.append(command)
                if self._act(peer, len(self.commands)) == "end":
                    return


@pytest.fixture
def serve():
    """Start a server that does *act(peer, number of the command)*; "end" ends the connection."""
    with ExitStack() as stack:
        yield lambda act: stack.enter_context(closing(ScriptedServer(act)))


class TestAnswers:
    def test_are_those_of_the_driver(self, connection, namespace):
        """Texts, numbers, nothing, lists in lists, and errors by their names."""
        connection.call("SET", namespace, "1")

        assert b"1" == connection.call("GET", namespace)
        assert 1.5 == float(connection.call("INCRBYFLOAT", namespace, 0.5))
        assert 3 == connection.call("STRLEN", namespace)
        assert [b"1.5", None] == connection.call("MGET", namespace, namespace + "none")
        assert [1, [b"\xff\x00", []]] == connection.call("EVAL", "return {1, {ARGV[1], {}}}", 0, b"\xff\x00")
        with pytest.raises(redis.exceptions.NoScriptError):
            connection.call("EVALSHA", "0" * 40, 0)
        assert b"1.5" == connection.call("GET", namespace)

    def test_may_be_large_and_arrive_in_pieces(self, connection):
        """So may commands, which no socket takes at once."""
        data = os.urandom(5_000_000)

        assert data == connection.call("ECHO", data)
        assert [data, b"x"] == connection.call("EVAL", "return {ARGV[1], ARGV[2]}", 0, data, "x")

    def test_may_arrive_byte_by_byte(self, serve, connect):
        """What has come is kept until the rest is there."""

        def dribble(peer, number):
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for place in range(len(answer)):
                peer.sendall(answer[place : place + 1])

        answer = b"*3\r\n$3\r\none\r\n:2\r\n$-1\r\n"

        assert [[b"one", 2, None]] * 3 == [connect(serve(dribble).url).call("ANY") for _ in range(3)]

    def test_may_take_their_time(self, serve, connect):
        """A slow server is waited for, up to the time-out."""

        def hesitate(peer, number):
            select.select([], [], [], 0.3)
            peer.sendall(b"+slow\r\n")

        assert b"slow" == connect(serve(hesitate).url, timeout=5).call("ANY")

    @pytest.mark.parametrize("threads", [2, 50])
    def test_go_to_those_who_asked(self, connection, threads):
        """However many threads ask at once."""

        def ask(thread):
            return [connection.call("ECHO", f"{thread}-{number}") for number in range(100)]

        answers = at_once(*[lambda thread=thread: ask(thread) for thread in range(threads)])

        assert [[f"{thread}-{number}".encode() for number in range(100)] for thread in range(threads)] == answers

    def test_are_known_by_pipelines_too(self, connection, namespace):
        """What the driver's own client does goes over connections of the same kind."""
        large = b"x" * 1_000_000
        with connection.client.pipeline(transaction=True) as pipe:
            pipe.set(namespace, large)
            pipe.get(namespace)
            pipe.delete(namespace)

            assert [True, large, 1] == pipe.execute()


class TestScripts:
    def test_are_sent_where_they_are_not_known(self, own_redis, connect):
        """Once; a server that forgets them is told again."""
        connection = connect(own_redis.url)
        script = connection.script("fill.lua")
        calls = [lambda: script(["entry", "guard"], "no", "x", 10)] * 3

        assert [0, 0, 0] == [call() for call in calls]
        connection.call("SCRIPT", "FLUSH")
        assert [0, 0, 0] == [call() for call in calls]

        counted = connection.client.info("commandstats")
        assert (2, 6) == tuple(counted[f"cmdstat_{name}"]["calls"] for name in ("eval", "evalsha"))


class TestSteps:
    """The names of the driver's that are relied on: where they are others, these fail and nothing else."""

    @pytest.fixture
    def count(self, monkeypatch):
        """What a socket is asked that would let go of the interpreter's lock."""
        counted = []

        def counting(name, method):
            def call(sock, *arguments):
                counted.append(name)
                return method(sock, *arguments)

            return call

        for name in ("send", "sendall", "recv", "recv_into", "settimeout"):
            monkeypatch.setattr(socket.socket, name, counting(name, getattr(socket.socket, name)), raising=False)
        return counted

    @pytest.mark.parametrize("url", ["url", "unix_url"])
    def test_let_go_of_the_interpreters_lock_once(self, own_redis, connect, count, url, monkeypatch):
        """A command is sent, waited for and received with one call that waits."""
        connection = connect(getattr(own_redis, url))
        connection.call("PING")
        monkeypatch.setattr(select, "poll", None)  # nobody needs another one than those that there are
        count.clear()

        assert [b"PONG"] * 10 == [connection.call("PING") for _ in range(10)]

        assert [] == count

    def test_take_one_connection(self, own_redis, connect):
        """Which is kept, and not made again for each command, whatever is the answer."""
        connection = connect(own_redis.url)
        for _ in range(10):
            connection.call("PING")
            with pytest.raises(redis.ResponseError):
                connection.call("NONSENSE")

        assert 1 == len(connection.call("CLIENT", "LIST", "TYPE", "normal").splitlines())

    def test_include_a_sign_of_life_after_a_while(self, serve, connect):
        """What was idle for half a minute is tried before it is used."""
        server = serve(lambda peer, number: peer.sendall(b"+OK\r\n"))
        connection = connect(server.url)
        connection.call("ANY")
        before = server.signs_of_life
        (kept,) = idle(connection)
        assert 30 == kept.health_check_interval
        kept.next_health_check = 0

        assert [b"OK", b"OK"] == [connection.call("ANY") for _ in range(2)]

        assert 1 == server.signs_of_life - before


class TestLostConnections:
    def test_in_the_middle_of_an_answer(self, serve, connect):
        """The command is repeated on a new connection, and nothing of the first answer is left."""

        def break_off(peer, number):
            peer.sendall(b"*2\r\n$3\r\none\r\n" if number == 1 else b"*2\r\n$3\r\ntwo\r\n$3\r\ntwo\r\n")
            return "end" if number == 1 else None

        server = serve(break_off)

        assert [b"two", b"two"] == connect(server.url).call("ANY")
        assert (2, 2) == (len(server.commands), server.connections)

    def test_again_and_again(self, serve, connect):
        """A server that always breaks off is away: each command is sent twice."""

        def break_off(peer, number):
            peer.sendall(b"$10\r\none")
            return "end"

        server = serve(break_off)
        connection = connect(server.url + "?max_connections=1")

        for times in (1, 2, 3):
            with pytest.raises(redis.ConnectionError):
                connection.call("ANY")
            assert (2 * times, 2 * times) == (len(server.commands), server.connections)

    def test_while_they_were_idle(self, serve, connect):
        """A connection that has ended meanwhile is not used any more: the command is sent once."""
        server = serve(lambda peer, number: peer.sendall(b"+OK\r\n"))
        connection = connect(server.url)
        connection.call("ANY")

        to_idle(connection, server, b"")

        assert b"OK" == connection.call("ANY")
        assert (2, 2) == (len(server.commands), server.connections)

    def test_while_the_command_is_sent(self, serve, connect):
        """A connection that ends then is made anew, as the driver does it."""

        def reset(peer, number):
            if number == 1:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                return "end"
            peer.sendall(b"+OK\r\n" * command.count(b"END") if b"END" in server.commands[-1] else b"")
            return None

        server = serve(reset)
        command = b"x" * 20_000_000 + b"END"

        assert b"OK" == connect(server.url).call("ANY", command)
        assert 2 == server.connections

    def test_by_somebody_else_in_the_middle_of_a_command(self, serve, connect, monkeypatch):
        """The rest is no command of its own on a new connection; the whole is sent again."""

        def cut_short(descriptor, data):
            monkeypatch.undo()
            sent = send(descriptor, data[:20])
            connection.client.connection_pool.disconnect()
            return sent

        send = syscalls.send
        server = serve(lambda peer, number: peer.sendall(b"+OK\r\n"))
        connection = connect(server.url)
        connection.call("ANY")
        monkeypatch.setattr(syscalls, "send", cut_short)

        assert b"OK" == connection.call("SET", "a", "b\r\nFLUSHALL\r\n")
        whole = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$13\r\nb\r\nFLUSHALL\r\n\r\n"
        wait_until(lambda: len(server.commands) == 3)
        assert [whole[:20], whole] == sorted(server.commands[1:])

    def test_which_say_what_nobody_asked(self, serve, connect):
        """What lies there before the command is sent is not its answer."""
        server = serve(lambda peer, number: peer.sendall(b"+right\r\n"))
        connection = connect(server.url)
        connection.call("ANY")

        to_idle(connection, server, b"+wrong\r\n")

        assert [b"right", b"right"] == [connection.call("ANY") for _ in range(2)]
        assert 2 == server.connections

    def test_which_say_more_than_they_were_asked(self, serve, connect):
        """Also where both came together."""

        def chatter(peer, number):
            peer.sendall(b"+right\r\n+wrong\r\n")

        connection = connect(serve(chatter).url)

        assert [b"right", b"right"] == [connection.call("ANY") for _ in range(2)]

    def test_are_none_of_the_clients(self, own_redis, connect):
        """A restart between two commands is not noticed, and neither are connections that were closed here."""
        connection = connect(own_redis.url)
        connection.call("SET", "a", "1")

        own_redis.restart()
        assert b"1" == connection.call("GET", "a")
        connection.close()
        assert b"1" == connection.call("GET", "a")

    def test_by_an_interruption(self, serve, connect, monkeypatch):
        """Who is interrupted before the answer leaves none for the next."""
        asked = {}

        def answer_late(peer, number):
            asked.setdefault(peer, []).append(b"+%d\r\n" % number)
            if number > 2:
                peer.sendall(b"".join(asked[peer]))
            elif number == 1:
                peer.sendall(asked[peer].pop())

        connection = connect(serve(answer_late).url)
        connection.call("ANY")
        monkeypatch.setattr(idle(connection)[0], "read_response", interrupt)
        with pytest.raises(KeyboardInterrupt):
            connection.call("ANY")
        monkeypatch.undo()

        assert b"3" == connection.call("ANY")


class TestTimeOuts:
    @pytest.mark.parametrize("beginning", [b"", b"$5\r\nhal"])
    def test_are_not_repeated(self, serve, connect, beginning):
        """Neither before nor in the middle of an answer: whoever waits has waited long enough."""
        server = serve(lambda peer, number: peer.sendall(beginning) if beginning else None)

        with pytest.raises(redis.TimeoutError):
            connect(server.url, timeout=0.2).call("ANY")

        assert (1, 1) == (len(server.commands), server.connections)

    def test_leave_no_answer_for_the_next(self, serve, connect):
        """What comes too late is not taken for what the next one asked."""
        late = threading.Event()

        def delay(peer, number):
            if number == 1:
                late.wait(10)
            peer.sendall(b"+%d\r\n" % number)

        server = serve(delay)
        connection = connect(server.url, timeout=0.2)
        with pytest.raises(redis.TimeoutError):
            connection.call("ANY")
        late.set()

        assert [b"2", b"3", b"4"] == [connection.call("ANY") for _ in range(3)]

    def test_are_the_same_for_those_who_send(self, serve, connect):
        """A server that takes nothing any more costs one time-out."""
        full = threading.Event()

        server = serve(lambda peer, number: full.wait(10) and "end")
        try:
            with pytest.raises(redis.TimeoutError, match="writing"):
                connect(server.url, timeout=0.2).call("ANY", b"x" * 50_000_000)
        finally:
            full.set()
        assert 1 == server.connections

    def test_are_the_stores(self, serve, connect):
        """Who asks for the counters hears of no driver."""
        server = serve(lambda peer, number: None)
        counters = RedisCounters(connect(server.url, timeout=0.2))

        with pytest.raises(StoreUnavailable, match=r"^Redis does not serve \(TimeoutError\)"):
            reserve(counters, window())
        with pytest.raises(StoreUnavailable, match=r"^Redis does not serve. Try"):
            reserve(counters, window())
        assert 1 == len(server.commands)


class TestWays:
    def test_over_a_socket_of_this_host(self, own_redis, connect):
        """A Redis on the same host may be asked without TCP, with a password too."""
        connection = connect(own_redis.unix_url)
        counters = RedisCounters(connection)

        reserve(counters, window(3))

        assert 3 == used(counters, window())
        assert "unix" in connection.call("CLIENT", "INFO").decode() or b"redis.sock" in connection.call(
            "CLIENT", "LIST"
        )

    def test_over_tls(self, own_redis, connect, certificate):
        """What arrives there is not yet what is read: the driver's way, with the same answers."""
        data = os.urandom(1_000_000)
        with tls_in_front_of(own_redis.port, certificate) as port:
            url = own_redis.url.replace("redis://", "rediss://").replace(str(own_redis.port), str(port))
            connection = connect(f"{url}?ssl_ca_certs={certificate}")
            counters = RedisCounters(connection)

            reserve(counters, window(3))
            assert 3 == used(counters, window())
            assert data == connection.call("ECHO", data)
            assert [b"1", b"2"] == at_once(*[lambda word=word: connection.call("ECHO", word) for word in ("1", "2")])

            connection.client.connection_pool.disconnect()
            assert 3 == used(counters, window())

    def test_with_a_client_that_is_ready(self, own_redis, connect):
        """Its pool sees every connection come and go: it may have to, as Sentinel's."""
        with redis.Redis(port=own_redis.port, password=PASSWORD) as client:
            connection = connect(client)
            counters = RedisCounters(connection)

            reserve(counters, window(3))

            assert 3 == used(counters, window())
            assert not client.connection_pool._in_use_connections


def interrupt():
    raise KeyboardInterrupt


def idle(connection):
    """The connections that are kept for the next commands."""
    return connection.call.__self__._idle()


def to_idle(connection, server, data):
    """Let *server* say *data*, or its last word, to the one connection that is kept, and wait until it is there."""
    (kept,) = idle(connection)
    server.to_all(data)
    wait_until(lambda: select.select([kept._sock], [], [], 0)[0])


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
