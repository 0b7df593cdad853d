"""`python -m rdservice.notifications.apprise_process SECONDS`: runs apprise in its own process.

Reads one request as JSON from stdin and writes one response as JSON to stdout:

- `{"do": "check", "urls": […]}` → `{"usable": [true, …]}`
- `{"do": "send", "url": …, "title": …, "body": …}` → `{"error": null}`, or the kind of error in place of null

Writes nothing else, because apprise's log may quote URLs. Exits after SECONDS, even if its parent was killed.
"""

import json
import logging
import re
import signal
import sys
from typing import Any

from apprise import Apprise, AppriseAsset, NotifyFormat, PersistentStoreMode

from rdservice.config.process import leave_no_core_file

APP = "RD Station connection"


class _Overheard(logging.Handler):
    """Extracts the kind of error from apprise's log lines and drops the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.error: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        status = re.search(r"error=([1-5][0-9]{2})\b", text)
        if status:
            self.error = f"http_{status[1]}"
        elif re.search(r"(?i)connection error|socket|could not connect|timed? ?out", text):
            self.error = self.error or "connection"


def main() -> None:
    leave_no_core_file()
    signal.alarm(int(sys.argv[1]))
    logger = logging.getLogger("apprise")
    overheard = _Overheard()
    logger.handlers, logger.propagate = [overheard], False
    logger.setLevel(logging.WARNING)
    request = json.load(sys.stdin)
    if request["do"] == "check":
        response: dict[str, Any] = {"usable": [_usable(url) for url in request["urls"]]}
    else:
        response = {"error": _send(request, overheard)}
    json.dump(response, sys.stdout)


def _asset() -> AppriseAsset:
    """Return settings with which apprise does not touch the disk and follows no redirect.

    So a message goes to the operator's URL and nowhere else.
    """
    return AppriseAsset(
        app_id=APP,
        app_desc=APP,
        app_url="",
        image_path_mask=False,
        image_url_mask="",
        image_url_logo="",
        async_mode=False,
        http_redirects=False,
        pgp_autogen=False,
        pem_autogen=False,
        storage_mode=PersistentStoreMode.MEMORY,
        secure_logging=True,
    )


def _usable(url: str) -> bool:
    return Apprise.instantiate(url, asset=_asset()) is not None


def _send(request: dict[str, str], overheard: _Overheard) -> str | None:
    """Send the message; return the kind of error, None when the receiver accepted it."""
    messenger = Apprise(asset=_asset())
    if not messenger.add(request["url"]):
        return "invalid"
    sent = messenger.notify(
        title=request["title"], body=request["body"], body_format=NotifyFormat.TEXT, notify_type="warning"
    )
    return None if sent else overheard.error or "refused"


if __name__ == "__main__":
    main()
