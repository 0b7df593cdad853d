"""Gives consent in the sandbox like a person, to get a pair of tokens."""

import http.client
import json
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlencode, urlsplit

from rdservice.text.terminal import tell

TIMEOUT_SECONDS = 3


class ConsentError(Exception):
    """The sandbox issued no tokens, perhaps because a fault is set."""


@dataclass(frozen=True)
class TokenPair:
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in: int

    def as_upload(self) -> dict[str, object]:
        """The members that `POST /rd/tokens` requires."""
        return {
            "access_token": self.access_token,
            "refresh_token": self.refresh_token,
            "expires_in": self.expires_in,
        }


def obtain_tokens(
    sandbox_url: str, *, client_id: str, client_secret: str, redirect_uri: str, account: str = "default"
) -> TokenPair:
    """Press the consent page's button for the RD Station account and exchange the code. Raises ConsentError."""
    form = {"client_id": client_id, "redirect_uri": redirect_uri, "account": account}
    connection = http.client.HTTPConnection(urlsplit(sandbox_url).netloc, timeout=TIMEOUT_SECONDS)
    try:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/auth/dialog", urlencode(form), headers)
        consent = connection.getresponse()
        consent.read()
        [code] = parse_qs(urlsplit(consent.headers.get("Location", "")).query)["code"]
        exchange = {"client_id": client_id, "client_secret": client_secret, "code": code}
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/auth/token?token_by=code", json.dumps(exchange), headers)
        response = json.loads(connection.getresponse().read())
        return TokenPair(response["access_token"], response["refresh_token"], response["expires_in"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise ConsentError(
            tell("the sandbox gave no tokens: %(reason)s", reason=type(error).__name__)
        ) from error
    finally:
        connection.close()
