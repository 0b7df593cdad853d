"""Connects an account of the sandbox at the first start, refreshes it and reads from it, so that pages show data."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import requests

from scripts.local.local_settings import Credentials
from scripts.local.sandbox_consent import TokenPair

ACCOUNT = "demo"
"""Its name in the service. `default` remains free for the user."""
RD_ACCOUNT = "account-2"
"""Its name in the sandbox. The consent page offers a different one."""
PAGES = 3
TIMEOUT_SECONDS = 30
RENEWED_SECONDS = 10
"""How long to wait for the worker, which tries the uploaded refresh token within seconds."""


class FirstLookError(Exception):
    """The account could not be connected, perhaps because the sandbox was told to fail."""


def connect(credentials: Credentials, pair: TokenPair, pause: Callable[[float], None]) -> None:
    """Upload `pair`, read leads twice, fresh and then cached, and wait for the first refresh.

    `pause` waits for some seconds. Raises FirstLookError.
    """
    try:
        with requests.Session() as session:
            session.trust_env = False
            session.headers["Authorization"] = f"Bearer {credentials.api_key}"
            upload = {"account_id": ACCOUNT} | pair.as_upload()
            _ask(session, "POST", f"{credentials.url}/rd/tokens", json=upload)
            for page in [*range(1, PAGES + 1)] * 2:
                parameters = {"account_id": ACCOUNT, "page": page}
                _ask(session, "GET", f"{credentials.url}/rd/leads", params=parameters)
            give_up = time.monotonic() + RENEWED_SECONDS
            while not _is_renewed(session, credentials.url) and time.monotonic() < give_up:
                pause(0.2)
    except requests.RequestException as error:
        raise FirstLookError(type(error).__name__) from error


def _is_renewed(session: requests.Session, url: str) -> bool:
    accounts = _ask(session, "GET", f"{url}/rd/tokens").json()["accounts"]
    due = [account["refresh_after"] for account in accounts if account["account_id"] == ACCOUNT]
    # An uploaded pair is due at once, a refreshed one after hours.
    return any(datetime.fromisoformat(at) > datetime.now(UTC) + timedelta(minutes=1) for at in due)


def _ask(session: requests.Session, method: str, url: str, **request: object) -> requests.Response:
    response = session.request(method, url, timeout=TIMEOUT_SECONDS, **request)  # type: ignore[arg-type]
    if response.status_code != requests.codes.ok:
        raise FirstLookError(f"{method} {url}: {response.status_code}")
    return response
