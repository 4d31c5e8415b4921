"""Plain HTTP for machines that only read: `/metrics` and the revocation list. Bounded, in threads of its own."""

import contextlib
import socket
from collections.abc import Callable, Iterable, Mapping
from socketserver import TCPServer, ThreadingMixIn
from threading import BoundedSemaphore, Thread, Timer
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from provisiond.errors import binding_error

_AT_ONCE: Final = 16
"""Requests in progress, a thread each; whoever comes on top of them is cut off and may come again."""
_DEADLINE_S: Final = 30.0
"""From accepting a connection to its end: for a long list over a slow line, and against clients that drip."""

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""A WSGI application (PEP 3333)."""


def route(paths: Mapping[str, Application], otherwise: Application) -> Application:
    """One application of several, by the path that is asked for."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return paths.get(environ.get("PATH_INFO", ""), otherwise)(environ, start_response)

    return application


def not_found(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The application that has nothing."""
    start_response("404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", "0")])
    return []


class HttpServer:
    """An application on an address; one request a connection.

    Args:
        application: called from several threads at once.
        host, port: where; port 0 is any that is free.
        setting: the table of the configuration that says so, for the operator.

    Raises:
        ConfigurationError: it cannot listen there.
    """

    def __init__(self, application: Application, *, host: str, port: int, setting: str) -> None:
        try:
            self._server = _Server(host, port)
        except OSError as error:
            reason = f"[{setting}] cannot listen on {host}:{port}: {error.strerror}; choose another bind"
            raise binding_error(reason, error) from error
        self._server.set_app(application)
        self._thread = Thread(target=self._server.serve_forever, name=f"http {setting}", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it really listens on."""
        return self._server.server_port

    def close(self) -> None:
        """Stop serving and release the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(WSGIRequestHandler):
    timeout = _DEADLINE_S

    def log_message(self, *_: Any) -> None:
        """Say nothing: what is read here is read every few seconds."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, *_, address = found[0]
        self._free = BoundedSemaphore(_AT_ONCE)
        super().__init__(address[:2], _Handler)  # type: ignore[arg-type]  # of TCP over IPv4 and IPv6, text and number

    def server_bind(self) -> None:
        """Bind, without asking the DNS who we are, as http.server does."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin a request, if there is a thread for it."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer it in time, or cut it off."""
        deadline = Timer(_DEADLINE_S, _cut, (request,))
        deadline.daemon = True
        deadline.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            deadline.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: the client has gone."""


def _cut(request: socket.socket) -> None:
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)
