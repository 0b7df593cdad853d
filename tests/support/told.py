"""What callers of the service are told."""

from typing import NamedTuple

import requests

from tests.support.processes import Web


class Told(NamedTuple):
    """Status of an answer, `code` of its problem document, and `Retry-After` in seconds."""

    status: int
    code: str | None = None
    retry_after_s: int | None = None


SERVED = Told(200)
DATABASE_UNAVAILABLE = Told(503, "database_unavailable", 5)


def ask(
    web: Web,
    headers: dict[str, str],
    path: str = "/rd/tokens/default/access-token",
    *,
    method: str = "GET",
    body: dict[str, object] | None = None,
) -> Told:
    """Call the service and return what it tells. Raises requests.ConnectionError when it ends meanwhile."""
    response = requests.request(method, web.url + path, headers=headers, json=body, timeout=60)
    return told(response)


def told(response: requests.Response) -> Told:
    problem = response.headers["Content-Type"] == "application/problem+json"
    retry_after = response.headers.get("Retry-After")
    return Told(
        status=response.status_code,
        code=response.json()["code"] if problem else None,
        retry_after_s=None if retry_after is None else int(retry_after),
    )
