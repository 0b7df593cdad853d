"""What scripts/start says when the service is ready."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from scripts.local_settings import Credentials
from scripts.sandbox_consent import ConsentError, TokenPair, obtain_tokens

PLACEHOLDER = {"access_token": "…", "refresh_token": "…", "expires_in": 86400}


def ready_message(
    url: str, data_dir: Path, settings: Mapping[str, str], credentials: Credentials | None
) -> str:
    """The text for the terminal; `credentials` are None where database or RD Station are the user's own."""
    if credentials is None:
        return _message_without_secrets(url, data_dir)
    return f"""
The service is ready: {url}

    e-mail    {credentials.email}
    password  {credentials.password}
    API key   {credentials.api_key}

Log in there and connect the account, or connect it from a terminal with tokens of the sandbox:

{_upload_command(credentials, settings)}

The sandbox, an imitation of RD Station, is {credentials.sandbox_url}. All of this is also in
{data_dir / "demo-credentials.json"}. Ctrl-C ends everything; the next start keeps it.
"""


def _message_without_secrets(url: str, data_dir: Path) -> str:
    return f"""
The service is ready: {url}

Nobody was given access, because the database or the app of RD Station is your own. To log in, and to make a key for
programs that upload tokens (POST {url}/rd/tokens):

    RDSERVICE_DATA_DIR={shlex.quote(str(data_dir))} .venv/bin/python -m flask operators create you@example.com
    RDSERVICE_DATA_DIR={shlex.quote(str(data_dir))} .venv/bin/python -m flask keys create NAME --scope tokens:write

    curl -X POST {url}/rd/tokens -H "Authorization: Bearer KEY" -H "Content-Type: application/json" \\
         -d '{json.dumps(PLACEHOLDER, ensure_ascii=False)}'

Settings that were missing were made and are in {data_dir / "env"}: keep a copy of TOKEN_ENCRYPTION_KEYS, without
which the stored tokens cannot be read. Ctrl-C ends everything.
"""


def _upload_command(credentials: Credentials, settings: Mapping[str, str]) -> str:
    try:
        pair = obtain_tokens(
            credentials.sandbox_url,
            client_id=settings["RDSTATION_CLIENT_ID"],
            client_secret=settings["RDSTATION_CLIENT_SECRET"].split(",")[0],
            redirect_uri=settings["RDSTATION_REDIRECT_URI"],
        )
    except ConsentError as error:
        return f"{_curl(credentials, PLACEHOLDER)}\n\n(Put tokens in place of …: {error}.)"
    return _curl(credentials, _body(pair))


def _body(pair: TokenPair) -> dict[str, object]:
    return {
        "access_token": pair.access_token,
        "refresh_token": pair.refresh_token,
        "expires_in": pair.expires_in,
    }


def _curl(credentials: Credentials, body: Mapping[str, object]) -> str:
    # One line without a break: it is pasted.
    return (
        f'curl -X POST {credentials.url}/rd/tokens -H "Authorization: Bearer {credentials.api_key}" '
        f"""-H "Content-Type: application/json" -d '{json.dumps(body, ensure_ascii=False)}'"""
    )
