"""An account of the sandbox for the first start: connected, renewed and read from, so that the pages show something."""

import requests

from scripts.local_settings import Credentials
from scripts.sandbox_consent import TokenPair

ACCOUNT = "demo"
"""Its name in the service. `default` is left to whoever tries the service."""
RD_ACCOUNT = "account-2"
"""Its name in the sandbox, whose consent page offers another one."""
PAGES = 3
TIMEOUT_SECONDS = 30


class FirstLookError(Exception):
    """The account could not be connected, perhaps because the sandbox was told to fail."""


def connect(credentials: Credentials, pair: TokenPair) -> None:
    """Upload `pair` and read leads twice, as programs do: fresh ones, then cached ones. Raises FirstLookError."""
    try:
        with requests.Session() as session:
            session.trust_env = False
            session.headers["Authorization"] = f"Bearer {credentials.api_key}"
            upload = {"account_id": ACCOUNT} | pair.as_upload()
            _ask(session, "POST", f"{credentials.url}/rd/tokens", json=upload)
            for page in [*range(1, PAGES + 1)] * 2:
                parameters = {"account_id": ACCOUNT, "page": page}
                _ask(session, "GET", f"{credentials.url}/rd/leads", params=parameters)
    except requests.RequestException as error:
        raise FirstLookError(type(error).__name__) from error


def _ask(session: requests.Session, method: str, url: str, **request: object) -> None:
    answer = session.request(method, url, timeout=TIMEOUT_SECONDS, **request)  # type: ignore[arg-type]
    if answer.status_code != requests.codes.ok:
        raise FirstLookError(f"{method} {url}: {answer.status_code}")
