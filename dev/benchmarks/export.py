"""Speed of an export compared with the plan's limit, and its memory."""

import contextlib
import time
from pathlib import Path

import requests

from dev.benchmarks import accounts
from dev.benchmarks.processes import memory, tree
from dev.benchmarks.report import Measure, at_least, at_most
from dev.benchmarks.stage import BenchError, Load, Stage
from rdservice.leads.export.paging import PAGE_SIZE
from scripts.local.embedded_postgres import EmbeddedPostgres

CALLS_A_MINUTE = 1_200
"""Ten times the limit of smaller plans, so that the window fills within a minute."""
LEADS = 1_000_000
WARM_UP = ("/rd/leads", "/rd/leads/export?segmentation=10")
EXPORT = "/rd/leads/export"
LOOK_EVERY_S = 1.0


def measure(postgres: EmbeddedPostgres, folder: Path, load: Load) -> list[Measure]:
    """Read an export for longer than RD Station's minute."""
    seconds = load.choose(66, 3)
    with Stage(postgres, "export", folder, {"RDSTATION_RATE_LIMIT": str(CALLS_A_MINUTE)}) as stage:
        accounts.connect(stage, "default")
        stage.sandbox.patch(rate_limit=CALLS_A_MINUTE, leads=LEADS)
        web = stage.web(workers=1)
        for path in WARM_UP:
            requests.get(web.url + path, headers=stage.authorization, timeout=30).raise_for_status()
        before = memory(tree(web.pid)).proportional
        leads, took_s, most = _read(web.url + EXPORT, stage.authorization, web.pid, seconds)
        refused = stage.sandbox.calls("contacts_list", "429")
    allowed = CALLS_A_MINUTE / 60 * PAGE_SIZE * took_s
    return [
        Measure(
            key="rate",
            text=f"leads exported in {seconds} s ÷ leads on the pages that {CALLS_A_MINUTE} calls a minute allow",
            figure=leads / allowed,
            goal=at_least(0.95),
        ),
        Measure(key="refused", text="calls that RD Station refused (429)", figure=refused, goal=at_most(0)),
        Measure(
            key="memory",
            text="memory of the web process beyond what it had before, PSS",
            figure=(most - before) / 1e6,
            unit="MB",
            goal=at_most(20),
        ),
    ]


def _read(url: str, headers: dict[str, str], pid: int, seconds: int) -> tuple[int, float, int]:
    """Read an export for this time; return the number of leads, the duration and the peak memory."""
    with contextlib.closing(requests.get(url, headers=headers, stream=True, timeout=30)) as response:
        response.raise_for_status()
        started = looked = time.monotonic()
        leads, most = 0, 0
        for chunk in response.iter_content(None):
            now = time.monotonic()
            leads += chunk.count(b"\n")
            if now - looked >= LOOK_EVERY_S:
                looked, most = now, max(most, memory(tree(pid)).proportional)
            if now - started >= seconds:
                return leads, now - started, most
    raise BenchError("the export ended before its time")
