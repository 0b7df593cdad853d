"""The service's processes: the real code of the worker and of the web, with simulated time, threads and network."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import psycopg
from psycopg_pool import ConnectionPool

from dev.simulation.database import SimulatedDatabase, SimulatedPool
from dev.simulation.invariants import Invariants
from dev.simulation.network import CLIENT_ID, REDIRECT_URI, SimulatedRDStation, SimulatedTransport
from dev.simulation.scheduler import Event, Process, Scheduler, SimulatedEvent, SimulatedExecutor, Task
from rdservice.account_calls.calls import AccountCalls
from rdservice.cache.cache import Cache
from rdservice.config.settings import Settings
from rdservice.data_protection import retention
from rdservice.encryption import KeyRing
from rdservice.metrics.definitions import Metrics
from rdservice.metrics.flusher import Flusher
from rdservice.rdstation.client import RDStation
from rdservice.rdstation.rate_budget import RateBudget
from rdservice.rdstation.streaming import StreamedCalls
from rdservice.services import Services, read_state
from rdservice.tokens import credentials
from rdservice.tokens.access_tokens import AccessTokens
from rdservice.tokens.memory import TokenMemory
from rdservice.tokens.refresh import Refresher
from rdservice.worker.auto_refresh import LOOK_EVERY_S, auto_refresh_tokens
from rdservice.worker.bell import Bell
from rdservice.worker.run import END_AT_LATEST_S, GIVE_UP_WRITING_S

T = TypeVar("T")

LONGEST_IDLE_S = 6 * 3600.0
"""Maximum interval between two looks of an idle worker."""
PRUNE_EVERY_S = 3600.0
"""A real worker deletes old rows with each heartbeat, which would be three quarters of all transactions of a run."""


@dataclass(frozen=True, kw_only=True)
class World:
    """The parts that all processes of a run share."""

    scheduler: Scheduler
    database: SimulatedDatabase
    station: SimulatedRDStation
    invariants: Invariants
    rhythm: "Rhythm"
    encryption_key: str
    keys: KeyRing

    def settings(self, secrets: list[str]) -> Settings:
        """The service's settings with these client secrets, the first tried first."""
        return Settings.from_mapping(
            {
                "RDSTATION_CLIENT_ID": CLIENT_ID,
                "RDSTATION_CLIENT_SECRET": ",".join(secrets),
                "RDSTATION_REDIRECT_URI": REDIRECT_URI,
                "DATABASE_URL": "postgresql://localhost/simulated",
                "SECRET_KEY": "0123456789abcdef0123456789abcdef",
                "TOKEN_ENCRYPTION_KEYS": self.encryption_key,
            }
        )


@dataclass
class _Idle:
    turn: int
    since: float
    fingerprint: str


class Rhythm:
    """Skips the looks of idle workers that would find nothing.

    A worker looks every LOOK_EVERY_S. That is millions of queries a year, so a wait of that length goes on to the first
    look, in the worker's own rhythm, at which something may be due; one that is rung for ends at once.
    """

    def __init__(self, scheduler: Scheduler, invariants: Invariants) -> None:
        self._scheduler = scheduler
        self._invariants = invariants
        self._idle: dict[Task, _Idle] = {}
        self._next: Event | None = None

    def join(self, task: Task, fingerprint: str) -> None:
        self._idle[task] = _Idle(task.turn, self._scheduler.now, fingerprint)
        self.reschedule()

    def leave(self, task: Task) -> None:
        self._idle.pop(task, None)

    def reschedule(self) -> None:
        """Determine again which worker looks next. Call when the time of the next due account has changed."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._idle:
            looks = [
                (self._look(idle), number, task) for number, (task, idle) in enumerate(self._idle.items())
            ]
            look_at, _, task = min(looks)
            self._next = self._scheduler.at(look_at, lambda: self._wake(task))

    def _look(self, idle: _Idle) -> float:
        due = self._invariants.next_due(idle.fingerprint)
        latest = idle.since + LONGEST_IDLE_S
        wanted = latest if due is None else min(due, latest)
        return idle.since + LOOK_EVERY_S * max(1, math.ceil((wanted - idle.since) / LOOK_EVERY_S))

    def _wake(self, task: Task) -> None:
        idle = self._idle.pop(task, None)
        self._next = None
        if idle is not None:
            self._scheduler.wake(task, idle.turn)
        self.reschedule()


class _IdleEvent(SimulatedEvent):
    """The bell of a worker whose long waits follow the rhythm."""

    def __init__(self, scheduler: Scheduler, rhythm: Rhythm, fingerprint: str) -> None:
        super().__init__(scheduler)
        self._rhythm = rhythm
        self._fingerprint = fingerprint

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is None or timeout < LOOK_EVERY_S or self.is_set():
            return super().wait(timeout)
        task = self._scheduler.here()
        self._rhythm.join(task, self._fingerprint)
        try:
            return super().wait(None)
        finally:
            self._rhythm.leave(task)


class _SimulatedBell(Bell):
    """The worker's bell in virtual time. It counts the steps of the loop."""

    def __init__(self, world: World, process: Process, fingerprint: str) -> None:
        super().__init__()
        self._rung = _IdleEvent(world.scheduler, world.rhythm, fingerprint)
        self._stop = SimulatedEvent(world.scheduler)
        self._looked: Callable[[], None] = lambda: world.invariants.looked(process.name)

    def wait(self, seconds: float) -> None:
        self._looked()
        super().wait(seconds)


class _Parts:
    """The parts of web and worker processes."""

    def __init__(self, world: World, process: Process, secrets: list[str]) -> None:
        self.settings = world.settings(secrets)
        transport = SimulatedTransport(process, world.station)
        faults = world.station.faults
        pool = SimulatedPool(process, world.database, cut=faults.of_commit, committed=transport.committed)
        self.pool = cast("ConnectionPool[psycopg.Connection[Any]]", pool)
        self.metrics = Metrics()
        self.rdstation = RDStation(self.settings, transport=transport, monotonic=world.scheduler.monotonic)
        self.refresher = Refresher(
            pool=self.pool,
            keys=world.keys,
            metrics=self.metrics,
            rdstation=self.rdstation,
            fingerprint=credentials.fingerprint(self.settings),
            must_end=SimulatedEvent(world.scheduler),
            monotonic=world.scheduler.monotonic,
            claimed_by=process.name,
        )


class WorkerProcess(Process):
    """`python -m worker`, from the start of its loop to its end."""

    def __init__(
        self, world: World, name: str, secrets: list[str], ended: Callable[["WorkerProcess"], None]
    ) -> None:
        super().__init__(world.scheduler, name)
        self.stopping = False
        self._refresher = _Parts(world, self, secrets).refresher
        self._bell = _SimulatedBell(world, self, self._refresher.fingerprint)
        self._ended = ended
        self._pruned_at = -math.inf
        self.start(self._run)

    def terminate(self) -> None:
        """Send SIGTERM. As in `rdservice.worker.run`, the worker ends after its last write, or gives up in time."""
        self.stopping = True
        self._bell.stop()
        self.scheduler.after(GIVE_UP_WRITING_S, self._refresher.must_end.set)
        self.scheduler.after(END_AT_LATEST_S, self.kill)

    def kill(self) -> None:
        was_dead = self.dead
        super().kill()
        if not was_dead:
            self._ended(self)

    def _run(self) -> None:
        auto_refresh_tokens(
            self._refresher, self._bell, executor=SimulatedExecutor(self), prune=self._prune_now_and_then
        )
        self.retire()

    def _prune_now_and_then(self, pool: ConnectionPool[psycopg.Connection[Any]]) -> None:
        if self.scheduler.now - self._pruned_at >= PRUNE_EVERY_S:
            self._pruned_at = self.scheduler.now
            retention.enforce(pool)


class _UnlimitedBudget(RateBudget):
    """Lets every call pass. The real budget measures and waits with the real clock, which is not simulated."""

    def spend(self, account_id: str, call: Callable[[], T], **_: Any) -> T:  # noqa: ARG002
        return call()


class WebProcess(Process):
    """A web process, as far as operators and callers reach it."""

    def __init__(self, world: World, name: str, secrets: list[str]) -> None:
        super().__init__(world.scheduler, name)
        parts = _Parts(world, self, secrets)
        memory = TokenMemory(parts.pool, world.keys, monotonic=world.scheduler.monotonic)
        access_tokens = AccessTokens(
            parts.settings, memory, parts.refresher, executor=SimulatedExecutor(self)
        )
        rate_budget = _UnlimitedBudget(parts.pool, parts.settings.rate_limit)
        self.services = Services(
            settings=parts.settings,
            pool=parts.pool,
            keys=world.keys,
            metrics=parts.metrics,
            metrics_flusher=Flusher(parts.metrics, parts.pool, read_state),
            rdstation=parts.rdstation,
            streamed_calls=StreamedCalls(parts.settings),
            memory=memory,
            refresher=parts.refresher,
            access_tokens=access_tokens,
            rate_budget=rate_budget,
            account_calls=AccountCalls(access_tokens, rate_budget),
            cache=Cache(
                pool=parts.pool,
                keys=world.keys,
                tokens=memory,
                access_tokens=access_tokens,
                secret_key=parts.settings.secret_key,
                max_age_s=parts.settings.cache_ttl_s,
                must_end=parts.refresher.must_end,
                on_lost_note=parts.metrics.note_lost,
            ),
        )
