"""`flask webhooks`."""

import json

from rdservice.services import Services
from tests.integration.cli.conftest import Run
from tests.support.accounts import connect_account
from tests.support.sandbox_process import SandboxProcess


def test_subscriptions_are_made_listed_and_ended(
    run: Run, connected: Services, sandbox: SandboxProcess
) -> None:
    connect_account(connected, sandbox, "shop", due=False)
    assert run("webhooks", "list").stderr == "No account's lead events are subscribed.\n"
    assert run("webhooks", "subscribe", "--account", "shop").output == "shop: subscribed\n"
    assert run("webhooks", "subscribe", "--account", "shop").output == "shop: was subscribed already\n"
    (shown,) = json.loads(run("webhooks", "list", "--json").output)
    assert (shown["account_id"], shown["state"]) == ("shop", "in force")
    assert set(shown["subscribed"]) == {"WEBHOOK.CONVERTED", "WEBHOOK.MARKED_OPPORTUNITY"}
    assert run("webhooks", "list").output.startswith("shop  in force  since ")
    assert run("webhooks", "unsubscribe", "--account", "shop").output == "shop: unsubscribed\n"
    assert run("webhooks", "unsubscribe", "--account", "shop").output == "shop: was not subscribed\n"


def test_an_account_that_is_not_connected_is_an_error(run: Run) -> None:
    for command in ("subscribe", "unsubscribe"):
        ended = run("webhooks", command)
        assert ended.exit_code == 1
        assert "No RD Station account is connected as 'default'" in ended.output


def test_a_failure_of_rd_station_is_one_line(run: Run, connected: Services, sandbox: SandboxProcess) -> None:
    connect_account(connected, sandbox, due=False)
    sandbox.patch(faults=[{"operation": "other", "kind": "status", "status": 403}])
    ended = run("webhooks", "subscribe")
    assert (ended.exit_code, "the app's scope or the account's plan does not allow this" in ended.output) == (
        1,
        True,
    )


def test_without_a_database_every_command_ends_with_75(run_without_database: Run) -> None:
    for command in ("subscribe", "unsubscribe", "list"):
        assert run_without_database("webhooks", command).exit_code == 75
