"""What the simulation would catch: the service is broken in one place, and a rule finds it."""

from collections.abc import Callable
from typing import Any

import pytest

from dev.simulation import faults
from dev.simulation.incidents import Incidents
from dev.simulation.run import Plan
from rdservice.database import pool as database
from rdservice.rdstation import client
from rdservice.tokens import lease_sql, leases, refresh, store
from tests.dev.simulation.conftest import Run

Patch = pytest.MonkeyPatch


def mutate(patch: Patch, statement: str, old: str, new: str) -> None:
    """Replace a part of a statement of `lease_sql`, which must be there."""
    text = getattr(lease_sql, statement)
    assert old in text
    patch.setattr(lease_sql, statement, text.replace(old, new))


def only(patch: Patch, **rates: float) -> None:
    """Let exchanges suffer from these faults alone (named with _ for a space), so that few of them are needed."""
    patch.setattr(faults, "RATES", {name.replace("_", " "): rate / 10 for name, rate in rates.items()})
    patch.setattr(faults, "COMMIT_CUT", 0.0)
    patch.setattr(Incidents, "begin", lambda _: None)


def only_incidents(patch: Patch, name: str) -> None:
    patch.setattr(faults, "RATES", {})
    patch.setattr(Incidents, "_stopping_incident", getattr(Incidents, name))
    patch.setattr(Incidents, "_passing_incident", lambda _: None)


def store_only_under_the_lease(patch: Patch) -> None:
    only(patch, pause_after_sending=0.1)
    mutate(
        patch,
        "STORE",
        "AND stored_claim <= %(claim_no)s\n    RETURNING",
        "AND stored_claim <= %(claim_no)s AND holder = %(holder)s AND leased_until > rd_now()\n    RETURNING",
    )


def store_without_comparing_claims(patch: Patch) -> None:
    only(patch, pause_after_sending=0.2)
    mutate(patch, "STORE", "AND stored_claim <= %(claim_no)s\n    RETURNING", "\n    RETURNING")


def believe_a_refusal_while_an_earlier_outcome_is_unknown(patch: Patch) -> None:
    only(patch, answer_lost=0.1)
    mutate(patch, "REFUSE", "AND (outcome IS NULL OR answer_unknown)", "AND false")


def never_believe_a_refusal(patch: Patch) -> None:
    only(patch)
    mutate(patch, "REFUSE", "NOT (earlier.unknown OR %(doubtful)s)", "false")


def hold_wrong_credentials_against_accounts(patch: Patch) -> None:
    only_incidents(patch, "_wrong_secret")

    def refuse(conn: Any, lease: leases.Lease, error: str, **_: object) -> bool:
        return leases.refuse(conn, lease, error, doubtful=True) is not None

    patch.setattr(leases, "slow_down", refuse)


def renew_at_80_percent(patch: Patch) -> None:
    only_incidents(patch, "_outage")
    for module in (leases, store):
        patch.setattr(module, "REFRESH_AT_SHARE", 0.8)


def back_off_not_at_all(patch: Patch) -> None:
    only_incidents(patch, "_outage")
    mutate(patch, "BACK_OFF", "make_interval(secs => %(least_s)s)", "interval '0'")
    mutate(patch, "BACK_OFF", "random() *", "0 *")


def lease_for_less_than_an_exchange(patch: Patch) -> None:
    only(patch, latency_of_seconds=0.5)
    patch.setattr(leases, "LEASE_S", 4)
    patch.setattr(refresh, "COMMIT_ALLOWANCE_S", -client.EXCHANGE_DEADLINE_S)


def write_an_answer_only_once(patch: Patch) -> None:
    only(patch)
    patch.setattr(faults, "COMMIT_CUT", 0.01)

    def write_once(pool: Any, change: Callable[[Any], Any], **_: object) -> Any:
        with database.transaction(pool) as conn:
            return change(conn)

    patch.setattr(refresh, "write_for_sure", write_once)


def drop_an_answer_whose_pair_was_put_aside(patch: Patch) -> None:
    only(patch, operator_during_the_exchange=0.9)
    mutate(patch, "STORE", "UPDATE rdstation_replaced_tokens", "UPDATE rdstation_replaced_tokens AS r")
    mutate(patch, "STORE", "AND stored_claim <= %(claim_no)s)", "AND false)")


def make_no_second_looks(patch: Patch) -> None:
    only_incidents(patch, "_refusals")
    mutate(patch, "PICK_SECOND_LOOKS", "LIMIT %(slots)s", "LIMIT 0 * %(slots)s")


def look_again_at_once(patch: Patch) -> None:
    only_incidents(patch, "_refusals")
    patch.setattr(leases, "SECOND_LOOK_PAUSES_S", (0.0,))


@pytest.mark.parametrize(
    ("mutation", "rotating", "rules"),
    [
        (store_only_under_the_lease, True, {"loss"}),
        (store_without_comparing_claims, False, {"order"}),
        (believe_a_refusal_while_an_earlier_outcome_is_unknown, True, {"loss"}),
        (never_believe_a_refusal, False, {"notice"}),
        (hold_wrong_credentials_against_accounts, False, {"end"}),
        (renew_at_80_percent, False, {"lapse"}),
        (back_off_not_at_all, False, {"spin"}),
        (lease_for_less_than_an_exchange, False, {"double"}),
        (write_an_answer_only_once, True, {"loss"}),
        (drop_an_answer_whose_pair_was_put_aside, True, {"loss"}),
        (make_no_second_looks, False, {"lapse"}),
        (look_again_at_once, False, {"spin"}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_broken_service_is_found_out(
    run: Run,
    monkeypatch: Patch,
    mutation: Callable[[Patch], None],
    rotating: bool,
    rules: set[str],
) -> None:
    mutation(monkeypatch)
    outcome = run(Plan(accounts=20, days=8, seed=3, rotating=rotating))
    assert outcome.violation is not None
    assert outcome.violation.rule in rules
