"""Memory of all processes of the service after some work."""

from collections.abc import Iterable
from pathlib import Path

from dev.benchmarks import accounts, refreshes
from dev.benchmarks.http_load import LoadMaker
from dev.benchmarks.processes import children, memory, tree
from dev.benchmarks.reads import ACCESS_TOKEN
from dev.benchmarks.report import Goal, Measure, at_most
from dev.benchmarks.stage import BenchError, Load, Stage
from scripts.local.embedded_postgres import EmbeddedPostgres

WEB_WORKERS = 2
"""As many as gunicorn.conf.py starts by default."""
TOGETHER = at_most(220)
"""Megabytes. A machine with 512 MB must have room for them besides everything else."""


def measure(postgres: EmbeddedPostgres, folder: Path, load: Load) -> list[Measure]:
    """Measure all processes after some load on the web processes and some hundred refreshes of the worker."""
    with Stage(postgres, "memory", folder) as stage:
        count = load.choose(600, 100)
        accounts.connect(stage, "default", *(f"account-{number}" for number in range(count - 1)))
        web, worker = stage.web(workers=WEB_WORKERS), stage.worker()
        LoadMaker(folder).make(web.url + ACCESS_TOKEN, stage.authorization, seconds=load.choose(8, 1))
        refreshes.refresh(stage, count)
        workers = children(web.pid)
        if len(workers) != WEB_WORKERS:
            raise BenchError(f"gunicorn has {len(workers)} workers instead of {WEB_WORKERS}")
        if postgres.pid is None:
            raise BenchError("PostgreSQL has ended")
        return [
            # What a machine needs for them is the sum of their proportional sizes: the resident ones count a page of a
            # library once for each process that has it.
            *_shown(
                "together",
                f"{WEB_WORKERS} web workers with gunicorn's master and 1 refresh worker",
                tree(web.pid) | tree(worker.pid),
                goal=TOGETHER,
            ),
            *_shown("web", f"web: gunicorn with {WEB_WORKERS} workers", tree(web.pid)),
            *(
                measure
                for number, pid in enumerate(sorted(workers), 1)
                for measure in _shown(f"web_worker_{number}", f"web worker {number}", [pid])
            ),
            *_shown("refresh_worker", "refresh worker", tree(worker.pid)),
            *_shown("postgres", "embedded PostgreSQL", tree(postgres.pid)),
        ]


def _shown(key: str, text: str, pids: Iterable[int], *, goal: Goal | None = None) -> list[Measure]:
    """The proportional set size, which adds up over processes that share pages, and the resident one."""
    found = memory(pids)
    return [
        Measure(key=f"{key}_pss", text=f"{text}, PSS", figure=found.proportional / 1e6, unit="MB", goal=goal),
        Measure(key=f"{key}_rss", text=f"{text}, RSS", figure=found.resident / 1e6, unit="MB"),
    ]
