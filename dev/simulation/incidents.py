"""Incidents that affect everything for a while: outages, 429 storms, new secrets, restarts, clock steps, deploys."""

import random
from collections import Counter
from collections.abc import Callable

from dev.simulation.faults import DAY, HOUR, LONGEST_OUTAGE_S, RECOVERY_S, Outage, Refusal
from dev.simulation.fleet import Fleet
from dev.simulation.processes import World

REAL_RESTARTS = 3
"""How many of a run's database restarts restart the real server; the others are virtual."""
FARTHEST_CLOCK_S = 600.0
"""Maximum difference between the database's clock and RD Station's."""
REFUSALS: tuple[Refusal, ...] = ("false refusal", "false refusal without a name")
LONGEST_REFUSAL_S = 2400.0
"""Second looks follow after 15 minutes and an hour, and the tokens live for two hours more at least."""
OUTAGES: tuple[Outage, ...] = ("refused", "server error", "html", "silence")


class Incidents:
    """Plans incidents one after the other. Those that stop all refreshes are at least RECOVERY_S apart."""

    def __init__(self, world: World, fleet: Fleet, dice: random.Random, *, days: float) -> None:
        self._gap_s = max(1.0, min(4.0, days / 12)) * DAY
        self.counts: Counter[str] = Counter()
        self._world = world
        self._scheduler = world.scheduler
        self._fleet = fleet
        self._dice = dice
        self._restarts = 0
        self._secrets_made = 1

    def begin(self) -> None:
        self._scheduler.after(self._dice.uniform(1 * HOUR, 12 * HOUR), self._stopping_incident)
        self._scheduler.after(self._dice.uniform(1 * HOUR, 12 * HOUR), self._passing_incident)

    def _stopping_incident(self) -> None:
        """An incident that stops all refreshes. It reports its end."""
        incident = self._dice.choice(
            [
                self._outage,
                self._outage,
                self._storm,
                self._refusals,
                self._wrong_secret,
                self._planned_new_secret,
            ]
        )
        incident()

    def _over(self) -> None:
        self._scheduler.after(RECOVERY_S + self._dice.expovariate(1 / self._gap_s), self._stopping_incident)

    def _passing_incident(self) -> None:
        incident = self._dice.choice([self._database_down, self._clock_step, self._clock_step, self._deploy])
        incident()
        self._scheduler.after(self._dice.expovariate(1 / (18 * HOUR)), self._passing_incident)

    def _outage(self) -> None:
        kind = self._dice.choice(OUTAGES)
        longest = self._dice.random() < 0.3
        seconds = LONGEST_OUTAGE_S if longest else self._dice.uniform(600, LONGEST_OUTAGE_S)
        self._count(f"outage ({kind})")
        self._world.station.faults.weather.outage = kind
        self._later(seconds, self._end_outage)

    def _end_outage(self) -> None:
        self._world.station.faults.weather.outage = None
        self._over()

    def _storm(self) -> None:
        weather = self._world.station.faults.weather
        weather.storm = True
        weather.storm_says_when = self._dice.random() < 0.5
        self._count("storm of 429")
        self._later(self._dice.uniform(600, 3 * HOUR), self._end_storm)

    def _end_storm(self) -> None:
        self._world.station.faults.weather.storm = False
        self._over()

    def _refusals(self) -> None:
        """RD Station refuses every refresh token for a while, and none of them is dead."""
        kind = self._dice.choice(REFUSALS)
        self._count(f"{kind} for everyone")
        self._world.station.faults.weather.refusal = kind
        self._later(self._dice.uniform(300, LONGEST_REFUSAL_S), self._end_refusals)

    def _end_refusals(self) -> None:
        self._world.station.faults.weather.refusal = None
        self._over()

    def _wrong_secret(self) -> None:
        """The secret changes at RD Station before the service gets the new one."""
        self._count("wrong client secret")
        self._world.station.accepted = {self._new_secret()}
        self._later(self._dice.uniform(0.2 * HOUR, 5 * HOUR), self._mend_secret)

    def _mend_secret(self) -> None:
        self._fleet.secrets = sorted(self._world.station.accepted)
        self._fleet.deploy()
        self._over()

    def _planned_new_secret(self) -> None:
        """First the service gets both secrets, then the old one is refused, then the service forgets it."""
        self._count("planned new secret")
        old = self._fleet.secrets
        self._fleet.secrets = [self._new_secret(), *old]
        self._fleet.deploy()
        self._later(HOUR, self._refuse_old_secret)

    def _refuse_old_secret(self) -> None:
        self._world.station.accepted = {self._fleet.secrets[0]}
        self._later(HOUR, self._mend_secret)

    def _new_secret(self) -> str:
        self._secrets_made += 1
        return f"secret-{self._secrets_made}"

    def _database_down(self) -> None:
        database = self._world.database
        if not database.up:
            return
        really = self._restarts < REAL_RESTARTS
        self._restarts += really
        self._count("restart of the real database" if really else "database down")
        database.go_down()
        seconds = self._dice.uniform(1, 1200)
        # Start the server from the main thread, because it ends with the thread that started it.
        self._scheduler.after(seconds, lambda: database.come_back(restart=really), in_main=True)
        if self._dice.random() < 0.3:
            self._later(self._dice.uniform(0, 30), self._fleet.deploy)

    def _clock_step(self) -> None:
        """The database's clock jumps; RD Station's clock and monotonic clocks do not."""
        database = self._world.database
        new = self._dice.choice([0.0, self._dice.uniform(-5, 5), self._dice.uniform(-300, 300)])
        if self._dice.random() < 0.5:
            new += database.offset_s
        new = max(-FARTHEST_CLOCK_S, min(FARTHEST_CLOCK_S, new))
        forward = new > database.offset_s
        self._count(f"clock step {'forward' if forward else 'back'}")
        database.offset_s = new
        if forward:
            self._world.invariants.clock_steps.append(self._scheduler.now)
        self._world.rhythm.reschedule()

    def _deploy(self) -> None:
        self._fleet.deploy()

    def _count(self, name: str) -> None:
        self.counts[name] += 1
        self._world.invariants.note("", name)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self._scheduler.after(seconds, action)
