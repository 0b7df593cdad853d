"""One run: assembles its parts, lets its time pass, and returns the result."""

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.fernet import Fernet

from dev.simulation.database import START, SimulatedDatabase
from dev.simulation.faults import DAY, Faults
from dev.simulation.fleet import Fleet
from dev.simulation.incidents import Incidents
from dev.simulation.invariants import Invariants
from dev.simulation.ledger import Ledger
from dev.simulation.network import SimulatedRDStation
from dev.simulation.people import People
from dev.simulation.processes import Rhythm, World
from dev.simulation.records import Counts, Violation
from dev.simulation.scheduler import Scheduler
from rdservice.encryption import KeyRing
from scripts.local.embedded_postgres import EmbeddedPostgres

FIRST_SECRET = "secret-1"  # noqa: S105 - of a simulation
RENEWALS_A_DAY = 1.6


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The parameters of a run. The same plan gives the same run."""

    accounts: int
    days: float
    seed: int
    rotating: bool = False

    @property
    def command(self) -> str:
        """The command that replays the run."""
        rotating = " --rotating" if self.rotating else ""
        return (
            f"scripts/simulate --accounts {self.accounts} --days {self.days:g} --seed {self.seed}{rotating}"
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a run. `faults`, `people` and `losses`: counts by name; `seconds`: its duration."""

    plan: Plan
    counts: Counts
    calls: int
    faults: Counter[str]
    people: Counter[str]
    losses: Counter[str]
    violation: Violation | None
    digest: str
    seconds: float


def simulate(
    plan: Plan, server: EmbeddedPostgres, *, progress: Callable[[float], None] = lambda _days: None
) -> Outcome:
    """Run `plan` on a server with an empty database, which must not be used afterwards. `progress` is told the days."""
    began = time.monotonic()
    run = _Run(plan, server)
    violation = None
    try:
        run.go(progress)
    except Violation as error:
        violation = error
    finally:
        run.close()
    return Outcome(
        plan=plan,
        counts=run.invariants.counts,
        calls=run.station.calls,
        faults=run.faults.counts + run.incidents.counts + run.fleet.counts,
        people=run.people.counts,
        losses=run.invariants.losses,
        violation=violation,
        digest=f"{run.invariants.digest:08x}",
        seconds=time.monotonic() - began,
    )


class _Run:
    def __init__(self, plan: Plan, server: EmbeddedPostgres) -> None:
        dice = random.Random(plan.seed)  # noqa: S311 - a run is to be repeatable

        def own_dice() -> random.Random:
            # Each part has its own, so that a change in one part does not change the random numbers of the others.
            return random.Random(dice.random())  # noqa: S311

        self._plan = plan
        self._scheduler = Scheduler()
        encryption_key = Fernet.generate_key().decode()
        keys = KeyRing([encryption_key.encode()])
        ledger = self._ledger = Ledger(start=START)
        self._database = SimulatedDatabase(server, self._scheduler, own_dice())
        self.invariants = Invariants(self._scheduler, self._database, ledger, keys)
        self.faults = Faults(own_dice(), plan.accounts * plan.days * RENEWALS_A_DAY)
        self.station = SimulatedRDStation(
            self._scheduler, ledger, self.faults, own_dice(), rotating=plan.rotating
        )
        self.station.accepted = {FIRST_SECRET}
        self.station.rules = self.invariants
        rhythm = Rhythm(self._scheduler, self.invariants)
        self._database.watcher = self.invariants
        self.invariants.dues = rhythm
        self.invariants.secret_refused_at = lambda: self.station.refused_secret_at
        world = World(
            scheduler=self._scheduler,
            database=self._database,
            station=self.station,
            invariants=self.invariants,
            rhythm=rhythm,
            encryption_key=encryption_key,
            keys=keys,
        )
        self.people = People(self._scheduler, self._database, self.station, self.invariants, own_dice())
        self.fleet = Fleet(world, own_dice(), [FIRST_SECRET])
        self.incidents = Incidents(world, self.fleet, own_dice(), days=plan.days)

    def go(self, progress: Callable[[float], None]) -> None:
        accounts = ["default", *(f"account-{number}" for number in range(2, self._plan.accounts + 1))]
        self.people.web = self.fleet.web
        self.fleet.start()
        self.people.begin(accounts, self._plan.days)
        self.incidents.begin()
        hours = round(self._plan.days * 24)
        for hour in range(1, hours + 1):
            self._scheduler.run(until=hour * DAY / 24)
            if hour % 24 == 0:
                self._ledger.forget_expired(self._scheduler.now)
            progress(hour / 24)

    def close(self) -> None:
        self.fleet.end()
        self._scheduler.close()
        self._database.close()
        self.station.close()
