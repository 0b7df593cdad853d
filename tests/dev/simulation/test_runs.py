"""Twenty accounts over ten days: nothing lapses, nothing is lost without a name, and a seed is a run."""

import pytest

from dev.simulation.faults import RATES
from dev.simulation.run import Plan
from tests.dev.simulation.conftest import Run


@pytest.mark.parametrize("rotating", [False, True], ids=["staying", "rotating"])
def test_no_token_lapses_in_ten_days_of_faults(run: Run, rotating: bool) -> None:
    outcome = run(Plan(accounts=20, days=10, seed=1, rotating=rotating))
    assert outcome.violation is None, "\n".join(outcome.violation.trail)
    assert outcome.counts.renewals > 200
    assert outcome.counts.served > 30
    assert outcome.counts.revocations_noticed > 0
    assert outcome.counts.false_refusals_believed > 0
    assert outcome.counts.false_refusals_lifted > 0
    # It proves nothing where nothing goes wrong.
    assert len(RATES.keys() & outcome.faults.keys()) > len(RATES) / 2
    assert any(name.startswith("outage") for name in outcome.faults)
    assert outcome.faults["restart of the real database"] > 0
    assert outcome.faults["deploy"] > 0
    assert bool(outcome.losses) == rotating


def test_a_seed_is_a_run(run: Run) -> None:
    plan = Plan(accounts=5, days=1, seed=7, rotating=True)
    first, again = run(plan), run(plan)
    assert (first.digest, first.calls, first.faults) == (again.digest, again.calls, again.faults)
    assert run(Plan(accounts=5, days=1, seed=8, rotating=True)).digest != first.digest
