"""A proxy between the service and PostgreSQL that holds or cuts a connection at a chosen statement.

It reads the client's messages (PostgreSQL documentation, "Message Formats"), so that a fault hits the very
statement, or the very commit, that a test is about.
"""

import contextlib
import enum
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

SSL_REQUEST, GSS_REQUEST = 80_877_103, 80_877_104
READY_FOR_QUERY = b"Z\0\0\0\5"
PATIENCE_S = 60.0


class Where(enum.Enum):
    """At which message of a transaction a fault happens."""

    STATEMENT = "statement"
    COMMIT = "commit"


class Fault:
    """Waits for a statement that contains `words`, in a transaction's way from a client to the server.

    `cut`: the connection ends there; otherwise it stands still until `release`. `answered`: the server gets the message
    and has answered it by then, but the client does not see the answer; otherwise the server never gets it. Happens
    `times` times.
    """

    def __init__(self, words: str, where: Where, *, answered: bool, cut: bool, times: int) -> None:
        self.words = words.encode()
        self.where = where
        self.answered = answered
        self.cut = cut
        self.reached = threading.Event()
        self.happened = 0
        self._left = times
        self._released = threading.Event()

    def takes(self) -> bool:
        """Return whether it happens once more. Called with the proxy's lock held."""
        self._left -= 1
        return self._left >= 0

    def release(self) -> None:
        self._released.set()

    def happen(self) -> None:
        """Tell that it happened; return when the connection may go on. Raises ConnectionError for the end."""
        self.happened += 1
        self.reached.set()
        if self.cut or not self._released.wait(PATIENCE_S):
            raise ConnectionError("cut")


class DatabaseProxy:
    """Listens where `url` says and forwards to the PostgreSQL of `target`, an URL with a socket's folder as host."""

    def __init__(self, target: str) -> None:
        self._database = conninfo_to_dict(target)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._open: set[socket.socket] = set()
        self._accepting = threading.Thread(target=self._accept)

    @property
    def url(self) -> str:
        port = self._listener.getsockname()[1]
        user, password = self._database["user"], quote(str(self._database["password"]))
        return f"postgresql://{user}:{password}@127.0.0.1:{port}/{self._database['dbname']}"

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for fault in self._faults:
            fault.release()
        self.cut_all()
        self._accepting.join()

    def hold(
        self, words: str, where: Where = Where.STATEMENT, *, answered: bool = False, times: int = 1
    ) -> Fault:
        """Let the next connections that say `words` stand still there."""
        return self._add(Fault(words, where, answered=answered, cut=False, times=times))

    def cut(
        self, words: str, where: Where = Where.STATEMENT, *, answered: bool = False, times: int = 1
    ) -> Fault:
        """Let the next connections that say `words` end there."""
        return self._add(Fault(words, where, answered=answered, cut=True, times=times))

    def cut_all(self) -> None:
        """End all connections at once."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _add(self, fault: Fault) -> Fault:
        with self._lock:
            self._faults.append(fault)
        return fault

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
            server.connect(str(Path(str(self._database["host"])) / ".s.PGSQL.5432"))
            with self._lock:
                self._open |= {client, server}
            connection = _Connection(client, server)
            responses = threading.Thread(target=connection.forward_answers, daemon=True)
            responses.start()
            try:
                self._forward_messages(connection)
            finally:
                with self._lock:
                    self._open -= {client, server}
                for end in (client, server):
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
                responses.join()

    def _forward_messages(self, connection: "_Connection") -> None:
        """Pass on the client's messages until one end closes or a fault cuts."""
        for message in connection.messages():
            fault = self._fault_at(connection, message)
            if fault is None:
                connection.server.sendall(message)
            elif fault.answered:
                connection.keep_answer()
                connection.server.sendall(message)
                connection.answered.wait(PATIENCE_S)
                fault.happen()
                connection.give_answer()
            else:
                fault.happen()
                connection.server.sendall(message)

    def _fault_at(self, connection: "_Connection", message: bytes) -> Fault | None:
        if message[:1] not in (b"Q", b"P"):
            return None
        committing = b"COMMIT" in message[:20]
        with self._lock:
            for fault in self._faults:
                at_statement = fault.where is Where.STATEMENT and fault.words in message
                at_commit = fault.where is Where.COMMIT and committing and fault.words in connection.said
                if (at_statement or at_commit) and fault.takes():
                    return fault
        connection.said = b"" if committing else connection.said + message
        return None


class _Connection:
    """One client's way to the server and back."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.said = b""
        """The statements of the transaction under way."""
        self.answered = threading.Event()
        self._keeping = False
        self._kept = b""

    def messages(self) -> Iterator[bytes]:
        """Yield the client's messages: requests for encryption, the start, then one letter, the length, the rest."""
        code = 0
        while code in (0, SSL_REQUEST, GSS_REQUEST):
            head = self._read(8)
            length, code = struct.unpack("!II", head)
            yield head + self._read(length - 8)
        while True:
            head = self._read(5)
            (length,) = struct.unpack("!I", head[1:])
            yield head + self._read(length - 4)

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            received = self.client.recv(length - len(data))
            if not received:
                raise ConnectionError("the client closed the connection")
            data += received
        return data

    def forward_answers(self) -> None:
        """Pass on what the server says, or keep it back."""
        with contextlib.suppress(OSError):
            while response := self.server.recv(65_536):
                if not self._keeping:
                    self.client.sendall(response)
                    continue
                self._kept += response
                if READY_FOR_QUERY in self._kept:
                    self.answered.set()
        with contextlib.suppress(OSError):
            self.client.shutdown(socket.SHUT_RDWR)

    def keep_answer(self) -> None:
        self.answered.clear()
        self._keeping = True

    def give_answer(self) -> None:
        self._keeping = False
        self.client.sendall(self._kept)
        self._kept = b""
