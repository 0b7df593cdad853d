"""Servers that speak HTTP badly, slowly or not at all, for tests of the client."""

import contextlib
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PATIENCE_S = 30.0
"""How long a server goes on when nobody stops it: far longer than any deadline of the tests."""
DRIP_S = 0.02


@dataclass
class OddServer:
    """What was seen so far of the server's clients."""

    url: str
    received: list[bytes] = field(default_factory=list)
    """What each connection has sent."""
    ended: list[str] = field(default_factory=list)
    """How each connection ended: `peer` when the client closed it, `server` when the behaviour was over."""

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])


Behaviour = Callable[[socket.socket, OddServer, int], None]


@contextlib.contextmanager
def odd_server(behave: Behaviour, *, scheme: str = "http") -> Iterator[OddServer]:
    """Yield a server that calls `behave` in a thread for each connection, with the connection's number from 0."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = OddServer(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}")
        threads: list[threading.Thread] = []

        def serve(connection: socket.socket, number: int) -> None:
            with connection:
                connection.settimeout(PATIENCE_S)
                try:
                    behave(connection, server, number)
                except OSError:
                    server.ended.append("peer")
                else:
                    server.ended.append("server")

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    server.received.append(b"")
                    thread = threading.Thread(target=serve, args=(connection, len(server.received) - 1))
                    threads.append(thread)
                    thread.start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield server
        finally:
            # close() alone does not wake accept().
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join(PATIENCE_S)
            for thread in threads:
                thread.join(PATIENCE_S)


def read_request(connection: socket.socket, server: OddServer, number: int) -> bytes:
    """Read one request with its body."""
    request = b""
    while b"\r\n\r\n" not in request:
        request += _receive(connection, server, number)
    head, _, body = request.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    while len(body) < length:
        body += _receive(connection, server, number)
    return head + b"\r\n\r\n" + body


def _receive(connection: socket.socket, server: OddServer, number: int) -> bytes:
    data = connection.recv(65_536)
    if not data:
        raise ConnectionError("the client closed the connection")
    server.received[number] += data
    return data


def respond_with(*responses: bytes) -> Behaviour:
    """One of `answers` for each request over all connections, the last one again and again."""
    left = list(responses)

    def behave(connection: socket.socket, server: OddServer, number: int) -> None:
        while True:
            request = read_request(connection, server, number)
            connection.sendall(left.pop(0) if len(left) > 1 else left[0])
            if b"\r\nConnection: close\r\n" in request:
                return

    return behave


def say_nothing(connection: socket.socket, server: OddServer, number: int) -> None:
    """Take everything, answer nothing."""
    while True:
        _receive(connection, server, number)


def drip(start: bytes) -> Behaviour:
    """Read a request, send `start`, then a byte every 20 ms."""

    def behave(connection: socket.socket, server: OddServer, number: int) -> None:
        read_request(connection, server, number)
        connection.sendall(start)
        give_up_at = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up_at:
            connection.sendall(b"a")
            time.sleep(DRIP_S)

    return behave


def relay(port: int) -> Behaviour:
    """Pass everything on to the server on `port` of this machine, and its answers back."""

    def behave(connection: socket.socket, server: OddServer, number: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as upstream:
            responses = threading.Thread(target=_pump, args=(upstream, connection))
            responses.start()
            try:
                while True:
                    upstream.sendall(_receive(connection, server, number))
            finally:
                with contextlib.suppress(OSError):
                    upstream.shutdown(socket.SHUT_RDWR)
                responses.join()

    return behave


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Return the file of a new certificate for 127.0.0.1 that signs itself, and a server's TLS context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file, key_file = folder / "certificate.pem", folder / "key.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key_file)
    return file, context
