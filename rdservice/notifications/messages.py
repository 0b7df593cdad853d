"""The text of notifications, in Portuguese followed by English.

A message has both languages because it goes to groups and mailboxes whose readers' language is unknown. It contains
names and ids of accounts, and links to this service, but no secret and no personal data: an account whose id is an
e-mail address is named by its company alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from itertools import groupby

from rdservice.names import account_page, names_a_person
from rdservice.notifications.incidents import Told
from rdservice.text.catalogue import Language, message, translated
from rdservice.text.troubles import (
    COMPARE_CREDENTIALS,
    CONNECT_AGAIN,
    CREDENTIALS_REFUSED,
    MUST_BE_AUTHORIZED,
    NOT_RENEWED,
    REFUSED_TOGETHER,
    TRIED_AGAIN,
)

BEGUN: dict[str, tuple[str, ...]] = {
    "reauthorization_required": (CONNECT_AGAIN,),
    "expiring": (
        message("The renewal of the token fails, and the token expires soon. See the reason on the page:"),
    ),
    "credentials_refused": (CREDENTIALS_REFUSED, NOT_RENEWED, COMPARE_CREDENTIALS),
}
ENDED = message("Back to normal; you don't need to do anything:")
SETTINGS = message("Client ID and client secret of the service")
TEST = message(
    "This is a test message. The service sends its notifications here when an account needs attention."
)
BOTH: tuple[Language, ...] = ("pt-BR", "en")
BETWEEN = "\n\n— English —\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message in plain text."""

    title: str
    body: str


def test(origin: str) -> Message:
    """Return the test message. `origin`: scheme, host and port of the service, for links."""
    return Message(
        title=_both(message("test")),
        body=BETWEEN.join(f"{translated(language, TEST)}\n{origin}/notifications" for language in BOTH),
    )


def of_incidents(told: Sequence[Told], origin: str, *, refused_together: int = 0) -> Message:
    """Return the message about these incidents, which come from `incidents.told_in`.

    `refused_together`: that of the module of this name. If it is not 0, RD Station is to blame and not the accounts.
    """
    begun = sum(count for recovered, count in _counts(told) if not recovered)
    ended = sum(count for recovered, count in _counts(told) if recovered)
    return Message(
        title=_title(begun, ended),
        body=BETWEEN.join(_body(told, origin, lang, refused_together) for lang in BOTH),
    )


def _counts(told: Sequence[Told]) -> list[tuple[bool, int]]:
    by_kind = {(item.recovered, item.kind): item.of_its_kind for item in told}
    return [(recovered, count) for (recovered, _), count in by_kind.items()]


def _title(begun: int, ended: int) -> str:
    if begun:
        return _both(message("needs attention (%(count)s)"), count=begun)
    return _both(message("recovered (%(count)s)"), count=ended)


def _both(text: str, **values: object) -> str:
    return "RD Station: " + " · ".join(translated(language, text, **values) for language in BOTH)


def _body(told: Sequence[Told], origin: str, language: Language, refused_together: int) -> str:
    parts = []
    for (recovered, kind), group in groupby(told, key=lambda item: (item.recovered, item.kind)):
        named = list(group)
        together = bool(refused_together) and kind == "reauthorization_required" and not recovered
        head = (ENDED,) if recovered else BEGUN[kind]
        if together:
            head = (REFUSED_TOGETHER, TRIED_AGAIN)
        lines = [" ".join(translated(language, sentence, count=refused_together) for sentence in head)]
        lines += [_line(item, origin, language, together=together) for item in named]
        if (left := named[0].of_its_kind - len(named)) > 0:
            more = translated(language, "and %(count)s more: %(link)s", count=left, link=f"{origin}/")
            lines.append(f"- {more}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _line(item: Told, origin: str, language: Language, *, together: bool) -> str:
    if item.account_id is None:
        return f"- {translated(language, SETTINGS)}: {origin}/"
    shown, path = _called(item.account_id, item.name, language)
    if not item.recovered:
        if item.kind == "reauthorization_required" and not together:
            shown = translated(language, MUST_BE_AUTHORIZED, account=shown)
        if item.expires_at is not None:
            time = f"{item.expires_at.astimezone(UTC):%Y-%m-%d %H:%M}"
            until = translated(language, "access token valid until %(time)s UTC", time=time)
            shown += f" ({until})"
    return f"- {shown}: {origin}/{path}"


def _called(account_id: str, name: str | None, language: Language) -> tuple[str, str]:
    """Return an account's name in a message, and the path of its page without the leading slash."""
    company = None if name is None or names_a_person(name) else name
    if names_a_person(account_id):
        return company or translated(language, "Account whose name is an e-mail address"), ""
    return f"{company} ({account_id})" if company else account_id, account_page(account_id).removeprefix("/")
