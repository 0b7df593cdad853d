"""The web server's listening sockets, on this machine's loopback addresses only.

They are opened before anything else is started and handed to gunicorn, so that no other program, and no other copy of
this service that is being started, can take the port meanwhile.
"""

import errno
import socket

from rdservice.text.terminal import tell

DEFAULT_PORT = 8000
PORTS_TRIED = 100


class PortError(Exception):
    """The port is not available. The message says what to do."""


def open_sockets(wanted: str | None) -> list[socket.socket]:
    """Sockets on 127.0.0.1 and, where this machine has it, ::1, both on one port.

    `wanted` is the value of PORT: None takes 8000 or the next free one, "0" any free one.
    """
    if wanted is None:
        for port in range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TRIED):
            if (sockets := _listen(port)) is not None:
                return sockets
        last = DEFAULT_PORT + PORTS_TRIED - 1
        raise PortError(tell("no port from %(first)s to %(last)s is free", first=DEFAULT_PORT, last=last))
    if not wanted.isascii() or not wanted.isdecimal() or int(wanted) > 65535:
        raise PortError(tell("PORT must be a number from 0 to 65535. Example: PORT=8001 scripts/start"))
    for _ in range(PORTS_TRIED if int(wanted) == 0 else 1):
        if (sockets := _listen(int(wanted))) is not None:
            return sockets
    raise PortError(
        tell(
            "port %(port)s is taken by another program. Choose another one: PORT=8001 scripts/start (PORT=0 takes any"
            " free one)",
            port=wanted,
        )
    )


def _listen(port: int) -> list[socket.socket] | None:
    """None when the port is taken."""
    first = socket.socket(socket.AF_INET)
    try:
        _bind(first, ("127.0.0.1", port))
    except OSError as error:
        first.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise PortError(
            tell(
                "port %(port)s cannot be used: %(reason)s. Choose another: PORT=8001 scripts/start",
                port=port,
                reason=error.strerror,
            )
        ) from error
    try:
        second = socket.socket(socket.AF_INET6)
    except OSError:  # a kernel without IPv6
        return [first]
    try:
        second.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _bind(second, ("::1", first.getsockname()[1]))
    except OSError as error:
        second.close()
        if error.errno == errno.EADDRINUSE:
            first.close()
            return None
        return [first]  # IPv6 is there, its loopback address is not
    return [first, second]


def _bind(sock: socket.socket, address: tuple[str, int]) -> None:
    # Otherwise connections that an earlier run closed would block the port for a minute.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(address)
    sock.listen(512)
