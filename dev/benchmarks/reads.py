"""Cost of a read from memory, compared with a bare Flask route that returns the same bytes.

Both run under the same gunicorn settings, with one process each: two would share connections unevenly, by chance, and
leave no processor to the load maker on a small machine. Rounds take turns, so that what else the machine does hits
both.
"""

from pathlib import Path
from typing import NamedTuple

import requests

from dev.benchmarks import accounts
from dev.benchmarks.http_load import LoadMaker
from dev.benchmarks.processes import cpu_seconds, tree
from dev.benchmarks.report import Measure, at_least
from dev.benchmarks.stage import BenchError, Load, Server, Stage
from scripts.local.embedded_postgres import EmbeddedPostgres


class Round(NamedTuple):
    """The result of one server in one round."""

    per_second: float
    cpu_ms: float
    """Processor time for one request."""


GOAL = at_least(0.8)
ACCESS_TOKEN = "/rd/tokens/default/access-token"  # noqa: S105 - a path
LEADS = "/rd/leads?page_size=25"


def measure_access_token(postgres: EmbeddedPostgres, folder: Path, load: Load) -> list[Measure]:
    """Compare reads of a valid access token."""
    with Stage(postgres, "access_token", folder) as stage:
        accounts.connect(stage, "default")
        return _compare(stage, ACCESS_TOKEN, "access-token read", folder, load)


def measure_leads(postgres: EmbeddedPostgres, folder: Path, load: Load) -> list[Measure]:
    """Compare reads of one page of leads that is in the process's memory."""
    with Stage(postgres, "leads", folder) as stage:
        accounts.connect(stage, "default")
        measures = _compare(stage, LEADS, "cached /rd/leads", folder, load)
        calls = stage.sandbox.calls("contacts_list")
        if calls != 1:
            raise BenchError(f"the leads were not cached: {calls} calls reached the sandbox")
        return measures


def _compare(stage: Stage, path: str, text: str, folder: Path, load: Load) -> list[Measure]:
    service = stage.web(workers=1)
    url = service.url + path
    body = read_body(url, stage.authorization)
    bare = stage.bare(body, workers=1)
    maker = LoadMaker(folder)
    rounds = []
    for number in range(1 + load.choose(9, 1)):
        of_bare = run_round(maker, bare, bare.url + "/", stage.authorization, load)
        of_service = run_round(maker, service, url, stage.authorization, load)
        if number:  # the first one is for warming up
            rounds.append((of_bare, of_service))
    return [
        Measure.of_rounds(
            "ratio",
            f"{text} ÷ bare route, {len(body):,} bytes",
            [ours.per_second / theirs.per_second for theirs, ours in rounds],
            goal=GOAL,
        ),
        Measure.of_rounds("rate", text, [ours.per_second for _, ours in rounds], unit="/s"),
        Measure.of_rounds("bare_rate", "bare route", [theirs.per_second for theirs, _ in rounds], unit="/s"),
        Measure.of_rounds("cpu", f"processor time, {text}", [ours.cpu_ms for _, ours in rounds], unit="ms"),
        Measure.of_rounds(
            "bare_cpu", "processor time, bare route", [theirs.cpu_ms for theirs, _ in rounds], unit="ms"
        ),
    ]


def run_round(maker: LoadMaker, server: Server, url: str, headers: dict[str, str], load: Load) -> Round:
    """Load `url` of `server` for some seconds. Raises BenchError unless all requests succeed."""
    processes = tree(server.pid)
    cpu_before = cpu_seconds(processes)
    counted = maker.make(url, headers, seconds=load.choose(2, 1))
    cpu_ms = (cpu_seconds(processes) - cpu_before) / counted.requests * 1000
    return Round(counted.requests / counted.seconds, cpu_ms)


def read_body(url: str, headers: dict[str, str]) -> bytes:
    """Return the route's response, which is in memory from now on."""
    with requests.Session() as session:
        session.trust_env = False
        response = session.get(url, headers=headers, timeout=20)
    if response.status_code != requests.codes.ok or response.headers["Content-Type"] != "application/json":
        raise BenchError(f"{url} responded with {response.status_code}: {response.text[:500]}")
    return response.content
