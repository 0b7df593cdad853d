"""Manages the processes: starts them, replaces them in a deploy, and restarts them after a crash."""

import random
from collections import Counter

from dev.simulation.processes import WebProcess, WorkerProcess, World

WEB_PROCESSES = 2
WEB_ENDS_S = 30.0
"""How long a replaced web process may continue its requests."""
FEWEST_WORKERS, MOST_WORKERS = 2, 4


class Fleet:
    """Two web processes and two to four workers. `secrets`: the client secrets of new processes."""

    def __init__(self, world: World, dice: random.Random, secrets: list[str]) -> None:
        self.secrets = secrets
        self.counts: Counter[str] = Counter()
        self._world = world
        self._dice = dice
        self._started = 0
        self._workers: list[WorkerProcess] = []
        self._webs: list[WebProcess] = []
        self._wanted_workers = 0

    def start(self) -> None:
        """Start the first processes, or replace all."""
        self._wanted_workers = self._dice.randint(FEWEST_WORKERS, MOST_WORKERS)
        for _ in range(self._wanted_workers):
            self._start_worker()
        self._webs = [WebProcess(self._world, self._name("web"), self.secrets) for _ in range(WEB_PROCESSES)]

    def web(self) -> WebProcess:
        """Return a web process that a request reaches. A killed one is replaced by then."""
        place = self._dice.randrange(len(self._webs))
        if self._webs[place].dead:
            self._webs[place] = WebProcess(self._world, self._name("web"), self.secrets)
        return self._webs[place]

    def deploy(self) -> None:
        """Replace all processes: SIGTERM to the old ones, new ones up to a minute later or before."""
        self.counts["deploy"] += 1
        self._world.invariants.note("", "deploy")
        old_workers, old_webs = self._workers, self._webs
        self._workers, self._webs = [], []
        for worker in old_workers:
            worker.terminate()
        for web in old_webs:
            self._world.scheduler.after(WEB_ENDS_S, web.kill)
        self._wanted_workers = 0
        self._webs = [WebProcess(self._world, self._name("web"), self.secrets) for _ in range(WEB_PROCESSES)]
        self._world.scheduler.after(self._dice.uniform(0, 60), self._start_workers)

    def end(self) -> None:
        """Kill everything."""
        self._wanted_workers = 0
        for process in (*self._workers, *self._webs):
            process.kill()

    def _start_workers(self) -> None:
        self._wanted_workers = self._dice.randint(FEWEST_WORKERS, MOST_WORKERS)
        while len(self._workers) < self._wanted_workers:
            self._start_worker()

    def _start_worker(self) -> None:
        name = self._name("worker")
        self._workers.append(WorkerProcess(self._world, name, self.secrets, self._ended))

    def _ended(self, worker: WorkerProcess) -> None:
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        self._world.invariants.note("", f"{worker.name} {worker.end}")
        self._world.scheduler.after(self._dice.uniform(1, 30), self._start_missing)

    def _start_missing(self) -> None:
        if len(self._workers) < self._wanted_workers:
            self._start_worker()

    def _name(self, kind: str) -> str:
        self._started += 1
        return f"{kind}-{self._started}"
