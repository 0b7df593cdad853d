"""Every code of the closed list of errors is answered by the real processes, and none of the answers shows a secret."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from dev.documents.tables import error_statuses
from tests.e2e.leaks.conftest import MakeStage
from tests.support.leaks.stage import Stage

pytestmark = pytest.mark.slow

ELSEWHERE = {
    "database_unavailable": "test_crashes.py stops the database",
    "internal_error": "test_crashes.py lets the database refuse a row",
    "rdstation_timeout": "tests/integration/leads/test_leads.py; a caller gives up before the call does",
    "credentials_refused": "test_access_tokens.py; it needs a client whose secrets all failed for an hour",
}
"""Codes that are not provoked here, and why."""


def fault(stage: Stage, operation: str, **what: Any) -> None:
    stage.sandbox.patch(faults=[{"operation": operation} | what] if what else [])


def ask_for_lead(stage: Stage, path: str, **what: Any) -> None:
    """Another `path` each time: a failure is remembered for a moment."""
    fault(stage, "contact_get", **what)
    stage.call("GET", f"/rd/leads/{path}?account_id=default", "key")
    fault(stage, "contact_get")


def come_back(stage: Stage, query: str) -> None:
    stage.call("GET", f"/rd/callback?{query}&state={stage.begin_authorization()}", "operator")


def use_a_code_twice(stage: Stage) -> None:
    stage.connect()
    come_back(
        stage,
        f"code={next(stage.planted[name] for name in stage.planted.values if name.startswith('code_'))}",
    )


def refresh_twice(stage: Stage) -> None:
    fault(stage, "token_refresh", kind="status", status=500)
    stage.call("POST", "/rd/tokens/default/refresh", "key")
    stage.call("POST", "/rd/tokens/default/refresh", "key")
    fault(stage, "token_refresh")
    stage.sql("UPDATE rdstation_tokens SET retry_at = NULL")


def refresh_a_dead_token(stage: Stage) -> None:
    stage.store_account("dead", "error-dead-access-Qp1Wo2Ei3", "error-dead-refresh-Ru4Ty5Yt6")
    stage.call("POST", "/rd/tokens/dead/refresh", "key")


def read_a_damaged_token(stage: Stage) -> None:
    stage.planted.add(damaged_token="error-damaged-token-Ut7Iy8Or9")
    stage.store_account("damaged", "error-other-access-Pa1Ls2Kd3", "error-other-refresh-Jf4Hg5Gh6")
    stage.sql(
        "UPDATE rdstation_tokens SET access_token = 'error-damaged-token-Ut7Iy8Or9' WHERE account_id = 'damaged'"
    )
    stage.call("GET", "/rd/tokens/damaged/access-token", "key")


def upload_tokens_of_another_account(stage: Stage) -> None:
    stage.store_account("taken", "error-taken-access-Kf8Jd7Hs6", "error-taken-refresh-Lg5Kh4Jj3")
    stage.sql("UPDATE rdstation_tokens SET name = 'Another' WHERE account_id = 'taken'")
    pair = stage.sandbox.pair()
    stage.planted.add(another_access_token=pair["access_token"], another_refresh_token=pair["refresh_token"])
    upload(stage, json=pair | {"account_id": "taken"}, shown=["account_name"])


def upload(stage: Stage, by: str = "key", **more: Any) -> None:
    stage.call("POST", "/rd/tokens", by, **more)


PROVOKED: dict[str, Callable[[Stage], object]] = {
    "bad_request": lambda s: upload(
        s,
        data=f'{{"access_token": "{s.planted["uploaded_access_token"]}"',
        headers={"Content-Type": "application/json"},
    ),
    "unsupported_media_type": lambda s: upload(s, data={"access_token": s.planted["uploaded_access_token"]}),
    "payload_too_large": lambda s: upload(s, data=s.planted["uploaded_access_token"] * 4000),
    "token_refused": lambda s: upload(
        s,
        json={
            "access_token": s.planted["uploaded_access_token"],
            "refresh_token": s.planted["uploaded_refresh_token"],
            "expires_in": 60,
        },
    ),
    "another_account": upload_tokens_of_another_account,
    "unauthorized": lambda s: upload(s, "unknown"),
    "insufficient_scope": lambda s: s.call(
        "GET", f"/rd/leads/email/{quote(s.planted['lead_email'])}", "narrow"
    ),
    "route_forbidden": lambda s: s.call("POST", f"/rd/api/auth/token?code={s.planted['wrong_code']}", "key"),
    "csrf_failed": lambda s: s.call(
        "POST", "/logout", "operator", headers={"X-CSRFToken": s.planted["wrong_state"]}
    ),
    "not_found": lambda s: s.call("GET", f"/nowhere/{quote(s.planted['lead_email'])}"),
    "method_not_allowed": lambda s: s.call("POST", "/healthz", data=s.planted["lead_email"]),
    "not_connected": lambda s: s.call("GET", "/rd/tokens/never/access-token", "key"),
    "invalid_field": lambda s: s.call(
        "POST", "/rd/leads/lookup", "key", json={"email": s.planted["lead_phone"]}
    ),
    "invalid_state": lambda s: s.call(
        "GET", f"/rd/callback?code={s.planted['wrong_code']}&state={s.planted['wrong_state']}", "operator"
    ),
    "consent_refused": lambda s: come_back(s, "error=access_denied"),
    "code_refused": lambda s: come_back(s, f"code={s.planted['wrong_code']}"),
    "code_expired": use_a_code_twice,
    "rdstation_failed": lambda s: ask_for_lead(s, s.planted["lead_uuid"], kind="html"),
    "rdstation_unavailable": lambda s: ask_for_lead(
        s, f"email/{quote(s.planted['lead_email'])}", kind="drop_before"
    ),
    "too_many_requests": refresh_twice,
    "reauthorization_required": refresh_a_dead_token,
    "token_unreadable": read_a_damaged_token,
}


def test_the_table_has_every_code() -> None:
    assert set(PROVOKED) | set(ELSEWHERE) == set(error_statuses()), (
        "add or remove these codes in PROVOKED of tests/e2e/leaks/test_error_codes.py"
    )


def test_every_code_is_answered_and_nothing_planted_comes_out(make_stage: MakeStage) -> None:
    stage = make_stage(production=False)
    stage.log_in()
    stage.store_account(
        "default", stage.planted["sandbox_access_token"], stage.planted["sandbox_refresh_token"], due=False
    )
    for code, provoke in PROVOKED.items():
        provoke(stage)
        assert code in stage.codes, f"{code} was not answered, only {stage.codes}"
    found = stage.look_everywhere()
    assert not found, "\n".join(found)
