"""Many callers in several processes find one expired token: how many exchanges reach RD Station."""

import http.client
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from urllib.parse import urlsplit

from rdservice.tokens.memory import REMEMBER_S
from scripts.benchmarks import accounts
from scripts.benchmarks.report import Measure, at_least, at_most
from scripts.benchmarks.stage import Load, Stage
from scripts.embedded_postgres import EmbeddedPostgres

CALLERS = 200
PROCESSES = 4
LATENCY_S = 0.2
ANSWER_WITHIN_S = 20.0

EXPIRE = "UPDATE rdstation_tokens SET expires_at = rd_now(), issued_at = rd_now() - interval '1 day'"


def measure(postgres: EmbeddedPostgres, folder: Path, load: Load) -> list[Measure]:
    """Expire the token, let everyone ask for it at the same moment, and count; some rounds of that."""
    with Stage(postgres, "callers", folder) as stage, ThreadPoolExecutor(CALLERS) as executor:
        accounts.connect(stage, "default")
        stage.sandbox.patch(latency_ms=LATENCY_S * 1000)
        # One process behind each address: then it is sure that all of them have callers.
        urls = [stage.web(workers=1).url for _ in range(PROCESSES)]
        together = Barrier(CALLERS)

        def ask(number: int) -> tuple[str | None, float]:
            return _ask(urls[number % PROCESSES], stage.authorization, together.wait)

        exchanges: list[float] = []
        served: list[float] = []
        slowest: list[float] = []
        for _ in range(load.choose(7, 2)):
            before = stage.sandbox.calls("token_refresh")
            stage.conn.execute(EXPIRE)
            # So that no process remembers the token from before.
            time.sleep(2 * REMEMBER_S)
            answers = list(executor.map(ask, range(CALLERS)))
            exchanges.append(stage.sandbox.calls("token_refresh") - before)
            tokens = [token for token, _ in answers if token is not None]
            served.append(max((tokens.count(token) for token in set(tokens)), default=0))
            slowest.append(max(seconds for _, seconds in answers) * 1000)
    asked = f"{CALLERS} callers at {PROCESSES} processes, one expired token"
    return [
        Measure.of_rounds(
            "exchanges", f"calls that reached the sandbox, {asked}", exchanges, goal=at_most(1)
        ),
        Measure.of_rounds("served", "callers who got the same new token", served, goal=at_least(CALLERS)),
        Measure.of_rounds(
            "slowest_ms", f"slowest caller, latency {LATENCY_S * 1000:.0f} ms", slowest, unit="ms"
        ),
    ]


def _ask(url: str, headers: dict[str, str], together: Callable[[], object]) -> tuple[str | None, float]:
    """Return the access token that one caller gets, None for an error, and how long that took in seconds."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=ANSWER_WITHIN_S)
    connection.connect()
    together()
    started = time.perf_counter()
    try:
        connection.request("GET", "/rd/tokens/default/access-token", headers=headers)
        answer = connection.getresponse()
        body = answer.read()
    except OSError:
        return None, time.perf_counter() - started
    finally:
        connection.close()
    token = json.loads(body)["access_token"] if answer.status == http.HTTPStatus.OK else None
    return token, time.perf_counter() - started
