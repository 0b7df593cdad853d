"""The message of scripts/start when the service is ready."""

import json
import shlex
import textwrap
from collections.abc import Mapping
from pathlib import Path

from rdservice.text.catalogue import message
from rdservice.text.terminal import tell
from scripts.local import first_look
from scripts.local.local_settings import Credentials
from scripts.local.sandbox_consent import ConsentError, TokenPair, obtain_tokens

PLACEHOLDER = {"access_token": "…", "refresh_token": "…", "expires_in": 86400}
WIDTH = 100

FIRST_LOOK = message(
    "Open that address and log in. An account of the sandbox, “%(account)s”, is connected already, so that there is "
    "something to look at. Connect your own on the page, or from here with tokens of the sandbox:"
)
LOG_IN = message(
    "Log in there and connect the account, or connect it from a terminal with tokens of the sandbox:"
)
SANDBOX = message("The sandbox, an imitation of RD Station, is %(sandbox_url)s. All of this is also in")
NO_ACCESS = message(
    "Nobody was given access, because the database or the app of RD Station is your own. To log in, and to make a key "
    "for programs that upload tokens (POST %(url)s/rd/tokens):"
)
MADE = message(
    "Settings that were missing were made and are in %(file)s: keep a copy of TOKEN_ENCRYPTION_KEYS, without which the "
    "stored tokens cannot be read. Ctrl-C ends everything."
)


def ready_message(
    url: str,
    data_dir: Path,
    settings: Mapping[str, str],
    credentials: Credentials | None,
    *,
    is_first: bool,
) -> str:
    """The text for the terminal; `credentials` are None where database or RD Station are the user's own.

    `is_first`: the account for a first look was connected by this start.
    """
    if credentials is None:
        return _message_without_secrets(url, data_dir)
    access = {
        tell("e-mail"): credentials.email,
        tell("password"): credentials.password,
        tell("API key"): credentials.api_key,
    }
    width = max(map(len, access))
    ends = tell("Ctrl-C ends everything; the next start keeps it.")
    return "\n".join(
        [
            "",
            tell("The service is ready: %(url)s", url=url),
            "",
            *(f"    {name:<{width}}  {value}" for name, value in access.items()),
            "",
            _wrapped(tell(FIRST_LOOK, account=first_look.ACCOUNT) if is_first else tell(LOG_IN)),
            "",
            _upload_command(credentials, settings),
            "",
            tell(SANDBOX, sandbox_url=credentials.sandbox_url),
            f"{data_dir / 'demo-credentials.json'}. {ends}",
            "",
        ]
    )


def sandbox_tokens(credentials: Credentials, settings: Mapping[str, str], rd_account: str) -> TokenPair:
    """Give consent for an account of the sandbox; raises ConsentError."""
    return obtain_tokens(
        credentials.sandbox_url,
        client_id=settings["RDSTATION_CLIENT_ID"],
        client_secret=settings["RDSTATION_CLIENT_SECRET"].split(",")[0],
        redirect_uri=settings["RDSTATION_REDIRECT_URI"],
        account=rd_account,
    )


def _message_without_secrets(url: str, data_dir: Path) -> str:
    flask = f"RDSERVICE_DATA_DIR={shlex.quote(str(data_dir))} .venv/bin/python -m flask"
    made = tell(MADE, file=data_dir / "env")
    ready = tell("The service is ready: %(url)s", url=url)
    return f"""
{ready}

{_wrapped(tell(NO_ACCESS, url=url))}

    {flask} operators create you@example.com
    {flask} keys create NAME --scope tokens:write

    curl -X POST {url}/rd/tokens -H "Authorization: Bearer KEY" -H "Content-Type: application/json" \\
         -d '{json.dumps(PLACEHOLDER, ensure_ascii=False)}'

{_wrapped(made)}
"""


def _wrapped(text: str) -> str:
    # Paths are copied from here.
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _upload_command(credentials: Credentials, settings: Mapping[str, str]) -> str:
    try:
        pair = sandbox_tokens(credentials, settings, "default")
    except ConsentError as error:
        put = tell("(Put tokens in place of …: %(reason)s.)", reason=error)
        return f"{_curl(credentials, PLACEHOLDER)}\n\n{put}"
    return _curl(credentials, pair.as_upload())


def _curl(credentials: Credentials, body: Mapping[str, object]) -> str:
    # A single line, because users paste it.
    return (
        f'curl -X POST {credentials.url}/rd/tokens -H "Authorization: Bearer {credentials.api_key}" '
        f"""-H "Content-Type: application/json" -d '{json.dumps(body, ensure_ascii=False)}'"""
    )
