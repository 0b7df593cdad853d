"""Attempts of one passed-through request, with the sandbox as RD Station."""

from collections.abc import Callable

from rdservice.config.settings import Settings
from rdservice.passthrough.relay import relay
from rdservice.rdstation.streaming import Outgoing
from rdservice.services import Services
from tests.support.accounts import connect_account
from tests.support.sandbox_process import SandboxProcess

READ = Outgoing(method="GET", target="/platform/contacts/fields", headers=(), upload=None)


def test_a_failure_stays_the_answer_when_the_budget_leaves_no_place_to_repeat_it(
    make_services: Callable[[Settings], Services], variables: dict[str, str], sandbox: SandboxProcess
) -> None:
    services = make_services(
        Settings.from_mapping(variables | {"RDSTATION_API_URL": sandbox.url, "RDSTATION_RATE_LIMIT": "1"})
    )
    connect_account(services, sandbox, due=False)
    sandbox.patch(faults=[{"operation": "other", "kind": "status", "status": 503}])
    response = relay(services, "default", READ)
    assert response.status == 503
    assert b"".join(response.pieces())
    response.close()
    assert sandbox.calls()["other"] == {"503": 1}
