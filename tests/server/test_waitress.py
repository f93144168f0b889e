"""All names of waitress that the gateway uses, as a list to read before an upgrade."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from importlib.metadata import requires

import pytest
from waitress import adjustments, channel, parser, proxy_headers, server, task, trigger, wasyncore

from tests import ROOT

PACKAGE = ROOT / "llmgateway"
SERVING = {f"server/{name}.py" for name in ("channel", "loop", "parser", "server", "tasks", "threads")}
KNOW_IT = SERVING - {"server/threads.py"} | {"web/forwarded.py"}
"""The modules that import it; ``server/threads.py`` replaces its threads."""

TOUCHED: dict[object, set[str]] = {
    adjustments.Adjustments: {
        "channel_request_lookahead",
        "clear_untrusted_proxy_headers",
        "connection_limit",
        "ident",
        "inbuf_overflow",
        "log_socket_errors",
        "max_request_body_size",
        "max_request_header_size",
        "outbuf_high_watermark",
        "outbuf_overflow",
        "sockets",
        "threads",
    },
    channel.HTTPChannel: {
        "_flush_exception",
        "_flush_outbufs_below_high_watermark",
        "_flush_some",
        "add_channel",
        "addr",
        "adj",
        "cancel",
        "check_client_disconnected",
        "close_when_flushed",
        "connected",
        "del_channel",
        "error_task_class",
        "handle_close",
        "handle_read",
        "handle_write",
        "last_activity",
        "outbuf_lock",
        "parser_class",
        "received",
        "request",
        "requests",
        "requests_lock",
        "send",
        "server",
        "service",
        "task_class",
        "total_outbufs_len",
        "will_close",
        "write_soon",
    },
    parser.HTTPRequestParser: {
        "body_bytes_received",
        "body_rcv",
        "chunked",
        "completed",
        "empty",
        "error",
        "expect_continue",
        "get_body_stream",
        "header_plus",
        "headers",
        "headers_finished",
        "parse_header",
    },
    proxy_headers: {"proxy_headers_middleware"},
    server.TcpWSGIServer: {
        "_map",
        "accept",
        "active_channels",
        "channel_class",
        "close",
        "handle_accept",
        "pull_trigger",
        "readable",
        "sockinfo",
        "trigger",
    },
    task.ErrorTask: {"channel", "content_length", "execute", "request", "response_headers", "status", "write"},
    task.ThreadedTaskDispatcher: {"add_task", "shutdown"},
    task.WSGITask: {
        "build_response_header",
        "channel",
        "get_environment",
        "has_body",
        "set_close_on_finish",
        "status",
        "version",
        "write",
        "wrote_header",
    },
    trigger.trigger: {"pull_trigger"},
    wasyncore: {"read", "write"},
    wasyncore.dispatcher: {"_fileno", "accepting", "close", "readable", "socket", "writable"},
}

ALSO_OTHERS = {
    "__init__",
    "finish",  # a body's
    "daemon",  # a thread's
    "family",  # a socket's
    "fd",  # a selector's
    "fileno",  # a socket's
    "getsockname",  # a socket's
    "recv",  # a socket's
    "start",  # a thread's
}
"""Names that waitress has, too, but that belong to something else in these modules."""


def names_of(node: ast.AST) -> Iterator[str]:
    """Return the attributes that *node* reads, sets or passes by name, and the names that its classes define."""
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute):
            yield part.attr
        elif isinstance(part, ast.keyword) and part.arg:
            yield part.arg
        elif isinstance(part, ast.ClassDef):
            for statement in part.body:
                if isinstance(statement, ast.FunctionDef):
                    yield statement.name
                elif isinstance(statement, ast.Assign):
                    yield from (target.id for target in statement.targets if isinstance(target, ast.Name))
                elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                    yield statement.target.id


def attributes_of(thing: object) -> set[str]:
    """Return the names that a module or a class of waitress defines, and those that its methods set."""
    found = set(dir(thing))
    for base in inspect.getmro(thing) if inspect.isclass(thing) else ():
        if base is not object:
            found.update(names_set_in(ast.parse(inspect.getsource(inspect.getmodule(base)))))
    return found


def names_set_in(tree: ast.AST) -> Iterator[str]:
    for part in ast.walk(tree):
        if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store):
            yield part.attr


def waitress_names() -> set[str]:
    """Return the names of the methods and attributes of all serving classes of waitress."""
    modules = (adjustments, channel, parser, server, task, trigger, wasyncore)
    defined = {
        name
        for module in modules
        for thing in vars(module).values()
        if inspect.isclass(thing) and thing.__module__ == module.__name__
        for name in vars(thing)
    }
    return defined.union(*(names_set_in(ast.parse(inspect.getsource(module))) for module in modules))


def test_no_other_name_of_waitress_is_used():
    """A name that is newly used must be added to the list."""
    ours = {name for path in SERVING for name in names_of(ast.parse((PACKAGE / path).read_text()))}
    listed = set().union(*TOUCHED.values())

    assert sorted(ours & waitress_names() - ALSO_OTHERS - listed) == []
    assert sorted(listed - ours) == ["proxy_headers_middleware"]  # which app.py imports, as it is


@pytest.mark.parametrize("thing", TOUCHED, ids=lambda thing: thing.__name__)
def test_waitress_has_all_names_in_the_list(thing):
    """If an upgrade renames something, this test fails."""
    assert set() == TOUCHED[thing] - attributes_of(thing)


def test_which_modules_import_waitress():
    """The server package, and one module of the web package, which uses a documented name only."""
    importing = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "waitress")
        or (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "waitress" for alias in node.names))
    }

    assert KNOW_IT == importing


def test_its_version_is_pinned():
    """The minor version is pinned, because undocumented names may change without notice."""
    (requirement,) = [one for one in requires("llmgateway") or () if one.startswith("waitress")]

    assert "<3.1" in requirement
