"""The scenarios that make each alert fire, and end it."""

from collections.abc import Callable
from dataclasses import dataclass

from dev.alert_drill.scene import Scene

HOUR_S = 3600
TOO_SLOW_MS = 6000
REFUSE_COUNTS = """
CREATE FUNCTION refuse_counts() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no counts now'; END $$;
CREATE TRIGGER refuse_counts BEFORE INSERT OR UPDATE ON rdservice_metric_totals EXECUTE FUNCTION refuse_counts()
"""
TAKE_COUNTS = "DROP FUNCTION refuse_counts CASCADE"
# While the database is down, a response takes up to four seconds, so scrapes must not be more frequent.
DATABASE_DOWN_SCRAPE_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """`cause` makes `alerts` fire, `traffic` is repeated until they do, `mend` ends the failure.

    `scrape_s`: seconds between scrapes if the drill's default is too fast.
    """

    alerts: tuple[str, ...]
    about: str
    cause: Callable[[Scene], None]
    mend: Callable[[Scene], None]
    traffic: Callable[[Scene], None] | None = None
    scrape_s: float | None = None


def _failing(operation: str, status: int) -> Callable[[Scene], None]:
    return lambda scene: scene.fail(operation, status)


def _one_failure_among_twenty(scene: Scene) -> None:
    scene.list_accounts(19)
    scene.read_new_leads()


def _tokens_that_cannot_be_renewed(lifetime_s: int) -> Callable[[Scene], None]:
    def cause(scene: Scene) -> None:
        scene.fail("token_refresh", 503)
        scene.connect(lifetime_s=lifetime_s)

    return cause


def _heal_and_connect(scene: Scene) -> None:
    scene.heal()
    scene.connect()


def _revoke(scene: Scene) -> None:
    scene.sandbox.revoke()
    scene.refresh()


def _wrong_secret(scene: Scene) -> None:
    scene.stop_worker()
    scene.start_worker(RDSTATION_CLIENT_SECRET="a-wrong-secret")  # noqa: S106 - it is wrong
    # The new pair is due at once.
    scene.connect()


def _right_secret(scene: Scene) -> None:
    scene.stop_worker()
    scene.start_worker()


def _revoke_while_nobody_is_told(scene: Scene) -> None:
    scene.inbox.accepts = False
    scene.stop_worker()
    scene.start_worker(NOTIFY_URLS=scene.inbox.notify_url)
    # With less than an hour left, the message does not wait for a second look.
    scene.connect(lifetime_s=HOUR_S // 2)
    _revoke(scene)


def _accept_notifications(scene: Scene) -> None:
    scene.inbox.accepts = True
    scene.connect()


def _slow(scene: Scene) -> None:
    scene.sandbox.patch(latency_ms=TOO_SLOW_MS)


def _limited(scene: Scene) -> None:
    scene.sandbox.patch(rate_limit=2)


def _fill_cache_and_fail(scene: Scene) -> None:
    for _ in range(5):
        scene.read_old_leads()
    scene.fail("contacts_list", 500)


# The scenario with few errors is first: errors of the others would stay in its long window. The one that stops the
# database is last, because it takes longest to recover.
SCENARIOS = (
    Scenario(
        alerts=("RDServiceErrorBudgetBurnsSlowly",),
        about="one request in twenty fails",
        cause=_failing("contacts_list", 500),
        traffic=_one_failure_among_twenty,
        mend=Scene.heal,
    ),
    Scenario(
        alerts=("RDStationServerErrorsHigh", "RDServiceErrorBudgetBurnsFast"),
        about="RD Station responds with 500 to every request for leads",
        cause=_failing("contacts_list", 500),
        traffic=Scene.read_new_leads,
        mend=Scene.heal,
    ),
    Scenario(
        alerts=("RDStationClientErrorsHigh",),
        about="RD Station responds with 403 to every request for leads",
        cause=_failing("contacts_list", 403),
        traffic=Scene.read_new_leads,
        mend=Scene.heal,
    ),
    Scenario(
        alerts=("RDStationUnauthorizedCalls",),
        about="RD Station responds with 401 to every request for leads, with new tokens too",
        cause=_failing("contacts_list", 401),
        traffic=Scene.read_new_leads,
        mend=Scene.heal,
    ),
    Scenario(
        alerts=("RDStationLatencyHigh", "RDServiceLatencyHigh"),
        about=f"RD Station takes {TOO_SLOW_MS / 1000:g} s for every response",
        cause=_slow,
        traffic=Scene.read_new_leads,
        mend=Scene.heal,
    ),
    Scenario(
        alerts=("RDStationLeadsStale",),
        about="RD Station fails while leads are in the cache",
        cause=_fill_cache_and_fail,
        traffic=Scene.read_old_leads,
        mend=Scene.heal,
    ),
    Scenario(
        alerts=("RDStationRateLimited",),
        about="RD Station allows two requests a minute",
        cause=_limited,
        traffic=Scene.read_new_leads,
        mend=Scene.heal,
    ),
    Scenario(
        alerts=("RDStationTokenExpiresSoon",),
        about="a token with an hour left cannot be refreshed",
        cause=_tokens_that_cannot_be_renewed(HOUR_S),
        mend=_heal_and_connect,
    ),
    Scenario(
        alerts=("RDStationTokenExpired",),
        about="a token with five seconds left cannot be refreshed",
        cause=_tokens_that_cannot_be_renewed(5),
        mend=_heal_and_connect,
    ),
    Scenario(
        alerts=("RDStationReauthorizationRequired",),
        about="consent is taken back at RD Station",
        cause=_revoke,
        mend=Scene.connect,
    ),
    Scenario(
        alerts=("RDStationCredentialsRefused",),
        about="the worker runs with a wrong client secret",
        cause=_wrong_secret,
        mend=_right_secret,
    ),
    Scenario(
        alerts=("RDServiceNotificationsFailing",),
        about="who is to be told that consent was taken back accepts no message",
        cause=_revoke_while_nobody_is_told,
        mend=_accept_notifications,
    ),
    Scenario(
        alerts=("RDStationWorkerStalled",),
        about="the worker is stopped",
        cause=Scene.stop_worker,
        mend=Scene.start_worker,
    ),
    Scenario(
        alerts=("RDServiceDown",),
        about="gunicorn is stopped",
        cause=Scene.stop_web,
        mend=Scene.start_web,
    ),
    Scenario(
        alerts=("RDServiceMetricsFlushFailing",),
        about="the database takes no counts",
        cause=lambda scene: scene.execute(REFUSE_COUNTS),
        mend=lambda scene: scene.execute(TAKE_COUNTS),
    ),
    Scenario(
        alerts=("RDStationDatabaseDown",),
        about="PostgreSQL is stopped",
        cause=Scene.stop_database,
        mend=lambda scene: scene.postgres.start(),
        scrape_s=DATABASE_DOWN_SCRAPE_S,
    ),
)
