"""Many clients of several processes request the same at once: how many reach RD Station, how long clients wait."""

import contextlib
import selectors
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from dev.benchmarks import accounts
from dev.benchmarks.http_client import Connection
from dev.benchmarks.reads import ACCESS_TOKEN
from dev.benchmarks.report import Measure, at_least, at_most
from dev.benchmarks.stage import BenchError, Load, Stage
from rdservice.tokens.memory import REMEMBER_S
from scripts.local.embedded_postgres import EmbeddedPostgres

CALLERS = 200
PROCESSES = 4
LATENCY_S = 0.2
SNAPSHOT_TIMEOUT_S = 20.0
LONGER_MS = 150
"""How much longer than the exchange itself the slowest client may wait."""

EXPIRE = "UPDATE rdstation_tokens SET expires_at = rd_now(), issued_at = rd_now() - interval '1 day'"
EXCHANGE_MS = "SELECT duration_ms FROM rdstation_refresh_attempts ORDER BY claim_no DESC LIMIT 1"


class Caller(NamedTuple):
    """The response to one client. `body` is None unless the status is 200."""

    body: bytes | None
    waited_ms: float


class Crowd:
    """Clients with open connections to several processes that send their requests at the same time."""

    def __init__(self, stage: Stage) -> None:
        # One process per address, so that every process has clients.
        self._urls = [stage.web(workers=1).url for _ in range(PROCESSES)]
        self._headers = stage.authorization

    def ask(self, path: str) -> list[Caller]:
        """Send all requests for `path` from one thread, since it shares the processors with the servers."""
        callers: list[Caller] = []
        with contextlib.ExitStack() as ends:
            selector = ends.enter_context(selectors.DefaultSelector())
            waiting = [
                Connection(self._urls[number % PROCESSES] + path, self._headers) for number in range(CALLERS)
            ]
            started: dict[Connection, float] = {}
            for connection in waiting:
                ends.callback(connection.socket.close)
                selector.register(connection.socket, selectors.EVENT_READ, connection)
                started[connection] = time.perf_counter()
                connection.send()
            give_up_at = time.perf_counter() + SNAPSHOT_TIMEOUT_S
            while len(callers) < CALLERS and (left_s := give_up_at - time.perf_counter()) > 0:
                for key, _ in selector.select(left_s):
                    ok = _receive(key.data)
                    if ok is not None:
                        waited_ms = (time.perf_counter() - started[key.data]) * 1000
                        callers.append(Caller(key.data.body if ok else None, waited_ms))
                        selector.unregister(key.fileobj)
        unanswered = Caller(None, SNAPSHOT_TIMEOUT_S * 1000)
        return callers + [unanswered] * (CALLERS - len(callers))


def _receive(connection: Connection) -> bool | None:
    try:
        return connection.receive()
    except OSError:
        return False


def measure(postgres: EmbeddedPostgres, folder: Path, load: Load) -> list[Measure]:
    """In rounds: let all clients request an expired token, then leads that are not cached."""
    rounds = load.choose(7, 1)
    with Stage(postgres, "callers", folder) as stage:
        accounts.connect(stage, "default")
        stage.sandbox.patch(latency_ms=LATENCY_S * 1000, rate_limit=None)
        crowd = Crowd(stage)
        return [*_expired_token(stage, crowd, rounds), *_missing_page(stage, crowd, rounds)]


def _expired_token(stage: Stage, crowd: Crowd, rounds: int) -> list[Measure]:
    calls: list[float] = []
    served: list[float] = []
    longer_ms: list[float] = []
    for _ in range(rounds):
        before = stage.sandbox.calls("token_refresh")
        stage.conn.execute(EXPIRE)
        # Until no process remembers the previous token.
        time.sleep(2 * REMEMBER_S)
        responses = crowd.ask(ACCESS_TOKEN)
        calls.append(stage.sandbox.calls("token_refresh") - before)
        served.append(_served_alike(responses, lambda body: body.split(b'"')[3]))
        longer_ms.append(max(response.waited_ms for response in responses) - _exchange_ms(stage))
    asked = f"{CALLERS} callers at {PROCESSES} processes, one expired token"
    return [
        Measure.of_rounds("exchanges", f"calls that reached the sandbox, {asked}", calls, goal=at_most(1)),
        Measure.of_rounds("served", "callers who got the same new token", served, goal=at_least(CALLERS)),
        Measure.of_rounds(
            "longer_ms",
            f"slowest caller, beyond the exchange's own {LATENCY_S * 1000:.0f} ms or so",
            longer_ms,
            unit="ms",
            goal=at_most(LONGER_MS),
        ),
    ]


def _missing_page(stage: Stage, crowd: Crowd, rounds: int) -> list[Measure]:
    crowd.ask("/rd/leads?page=1")  # so that the list of segmentations is there
    calls: list[float] = []
    served: list[float] = []
    slowest_ms: list[float] = []
    for number in range(rounds):
        before = stage.sandbox.calls("contacts_list")
        responses = crowd.ask(f"/rd/leads?page={2 + number}")
        calls.append(stage.sandbox.calls("contacts_list") - before)
        served.append(_served_alike(responses, bytes))
        slowest_ms.append(max(response.waited_ms for response in responses))
    asked = f"{CALLERS} callers at {PROCESSES} processes, one page that is not cached"
    return [
        Measure.of_rounds("fetches", f"calls that reached the sandbox, {asked}", calls, goal=at_most(1)),
        Measure.of_rounds("fetched", "callers who got the same leads", served, goal=at_least(CALLERS)),
        Measure.of_rounds(
            "slowest_ms", f"slowest caller, latency {LATENCY_S * 1000:.0f} ms", slowest_ms, unit="ms"
        ),
    ]


def _served_alike(responses: Sequence[Caller], what: Callable[[bytes], bytes]) -> int:
    """Number of clients that got the same response."""
    got = [what(response.body) for response in responses if response.body is not None]
    return max((got.count(one) for one in set(got)), default=0)


def _exchange_ms(stage: Stage) -> float:
    row = stage.conn.execute(EXCHANGE_MS).fetchone()
    if row is None or row[0] is None:
        raise BenchError("the exchange left no duration")
    return float(row[0])
