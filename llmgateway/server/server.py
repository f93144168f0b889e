"""The listening socket of a worker, and the connections accepted from it."""

from __future__ import annotations

import resource
import socket
import time
from pathlib import Path
from typing import Any, cast

from flask import Flask
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer

from ..errors import GatewayError
from ..proxy.plain import LARGEST_PLAIN_ANSWER
from ..services import Services
from ..settings import Settings
from ..web.context import EXTENSION
from ..web.cors import ORIGINS, AllowedOrigins
from ..web.refusals import keep_unreadable
from .capacity import WorkerCapacity
from .channel import Channel, ClientSocket, serving_channel
from .loop import Loop
from .parser import LARGEST_HEAD
from .threads import ThreadPool

IDLE_CONNECTIONS = 1000
"""The most open connections of a process besides one for each thread."""


class Server(TcpWSGIServer):
    """The listening socket, and the connections accepted from it.

    Args:
        loop: The event loop of the main thread.
        threads: The threads that run requests.
        capacity: Decides whether to accept connections.
    """

    channel_class = Channel
    _map: Loop
    _next_look = 0.0
    _paused = False

    def __init__(
        self,
        app: Flask,
        settings: Settings,
        listener: socket.socket,
        *,
        loop: Loop,
        threads: ThreadPool,
        capacity: WorkerCapacity,
    ) -> None:
        self.client_timeout = settings.client_timeout
        # None for an application without any, as in tests.
        self.origins: AllowedOrigins | None = getattr(app, "extensions", {}).get(ORIGINS)
        services: Services | None = getattr(app, "extensions", {}).get(EXTENSION)
        self._refusals = None if services is None else services.refusals
        self.capacity = capacity
        capacity.on_free_slots = self.resume_accepting
        super().__init__(
            app,
            cast("Any", loop),  # the type stubs are wrong
            _sock=listener,
            dispatcher=cast("Any", threads),
            adj=_adjustments(settings, listener),
            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
            bind_socket=False,
        )

    def connections(self) -> list[Channel]:
        return list(cast("dict[int, Channel]", self.active_channels).values())  # the type stubs are wrong

    def readable(self) -> bool:
        # Set it before asking. If a slot becomes free in between, resume_accepting() must not skip the wake-up.
        self._paused = True
        self._paused = not self.capacity.should_accept()
        return bool(super().readable()) and not self._paused

    def handle_accept(self) -> None:
        # The more connections are ready, the longer a round of the loop takes. If it accepted only one, new connections
        # would wait for seconds under attack. Otherwise it should be one, so that workers share them evenly.
        for _ in range(1 + self._map.ready // 2):
            # A new connection wakes all workers. The loop calls readable() afterwards.
            if not self.capacity.should_accept():
                return
            known = len(self._map)
            super().handle_accept()
            if len(self._map) == known:
                return  # none is waiting
            self._make_room()

    def accept(self) -> tuple[socket.socket, Any] | None:
        accepted = super().accept()
        if accepted is None:
            return None
        connection, address = accepted
        return ClientSocket(fileno=connection.detach()), address

    def _make_room(self) -> None:
        """Close the connection whose client has been idle for longest at the limit, also if it has not read its answer.

        Otherwise clients that neither send nor read would keep all others out. The newest connection stays: nothing of
        its request has been read yet, and the others may all be running for a moment.
        """
        if len(self._map) < self.adj.connection_limit:
            return
        waiting = [channel for channel in self.connections()[:-1] if not channel.runs]
        if waiting:
            min(waiting, key=lambda channel: channel.waits_since).handle_close()

    def resume_accepting(self) -> None:
        """Make the main thread accept connections again if it has stopped. Any thread may call this."""
        if self._paused:
            # The main thread must do this, because readable() of waitress' server also closes idle connections.
            cast(Any, self.trigger).pull_trigger(lambda: self._map.update_interest(self))

    def stop_accepting(self) -> None:
        """Close the listening socket, but not the server: its trigger must still wake the main thread."""
        wasyncore.dispatcher.close(self)

    def slots_changed(self) -> None:
        """Tell :class:`WorkerCapacity` that a request has taken or freed a slot. Any thread may call this."""
        self.capacity.slots_changed(serving_channel())

    def close_idle_connections(self) -> None:
        """Close the connections that have neither a request nor an answer to send."""
        for channel in self.connections():
            if channel.is_idle and not channel.discards_rest:
                channel.will_close = True
                self._map.update_interest(channel)

    def close_slow_connections(self, now: float) -> None:
        """Close the connections of clients that are too slow. It checks at most once a second."""
        if now < self._next_look:
            return
        self._next_look = now + 1
        self._make_room()
        for channel in self.connections():
            channel.enforce_pace(now)

    def refused(self, error: GatewayError, address: str) -> str:
        """Keep a request that the application does not get to see, and return its identifier. Any thread may call this.

        Args:
            address: That of the peer, which may be a proxy.
        """
        return keep_unreadable(self._refusals, error, address, now=time.time())

    def update_interest(self, channel: Channel) -> None:
        """Ask *channel* again for which events it waits. Any thread may call this."""
        self._map.update_interest(channel)

    def pull_trigger(self) -> None:
        """Make the main thread notice a change. In the thread of a request this works without waking it."""
        channel = serving_channel()
        if channel is None:
            super().pull_trigger()
        else:
            self._map.update_interest(channel)


class _Adjustments(Adjustments):
    """waitress' settings, and where uploads are kept."""

    def __init__(self, *, upload_folder: Path, **settings: Any) -> None:
        super().__init__(**settings)
        self.upload_folder = str(upload_folder)


def _adjustments(settings: Settings, listener: socket.socket) -> Adjustments:
    connections = settings.threads + IDLE_CONNECTIONS
    _allow_descriptors(connections + settings.threads * 2 + 100)
    return _Adjustments(
        sockets=[listener],
        ident="llmgateway",
        threads=settings.threads,
        connection_limit=connections,
        # waitress reads while a request runs, so it notices that the client has disconnected. While another request
        # waits, it does not; see Channel.check_client_disconnected().
        channel_request_lookahead=1,
        # create_app() decides which proxy's X-Forwarded-* headers are trusted, for every WSGI server.
        clear_untrusted_proxy_headers=False,
        # waitress refuses bodies that are as large as its limit. The setting allows them.
        max_request_header_size=LARGEST_HEAD,
        max_request_body_size=settings.max_body_bytes + 1,
        # Above these sizes waitress would write conversations to temporary files. Memory is limited by the largest body
        # and the largest plain answer. Uploads have a buffer of their own, see RequestParser.
        inbuf_overflow=settings.max_body_bytes + 1,
        outbuf_overflow=2 * LARGEST_PLAIN_ANSWER,
        # If the client reads more slowly than Azure sends, the stream waits, and memory is not filled.
        outbuf_high_watermark=1024 * 1024,
        # A client that disconnects is not an error.
        log_socket_errors=False,
        upload_folder=settings.instance,
    )


def _allow_descriptors(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
