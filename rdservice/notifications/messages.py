"""The text of a notification: in Portuguese and then in English, for whoever reads it.

Both in one message: it goes to groups and mailboxes whose readers' language nobody knows. It holds names and ids of
accounts, and links to this service; no secret, and no person's data: an account whose id is an e-mail address is named
by its company alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from itertools import groupby
from typing import Literal
from urllib.parse import quote

from rdservice.account_names import names_a_person
from rdservice.notifications.incidents import Told

Language = Literal["pt", "en"]

BEGUN: dict[str, dict[Language, str]] = {
    "reauthorization_required": {
        "pt": "Precisa ser autorizada de novo: a RD Station não aceita mais a autorização, e nada se renova sozinho."
        " Entre e conecte de novo:",
        "en": "Must be authorized again: RD Station no longer accepts the authorization, and nothing renews by itself."
        " Log in and connect again:",
    },
    "expiring": {
        "pt": "A renovação do token falha e a validade está acabando. Veja o motivo na página:",
        "en": "Renewing the token fails and its validity runs out. See the reason on the page:",
    },
    "credentials_refused": {
        "pt": "A RD Station recusa o client id ou o client secret. Os tokens ficam guardados, mas nenhum é renovado."
        " Compare RDSTATION_CLIENT_ID e RDSTATION_CLIENT_SECRET com o aplicativo na RD Station App Store:",
        "en": "RD Station refuses the client id or secret. The tokens are kept, but none is renewed."
        " Compare RDSTATION_CLIENT_ID and RDSTATION_CLIENT_SECRET with the app in the RD Station App Store:",
    },
}
ENDED: dict[Language, str] = {
    "pt": "Voltou ao normal; não é preciso fazer nada:",
    "en": "Back to normal; nothing needs doing:",
}
SETTINGS: dict[Language, str] = {
    "pt": "Client id e client secret do serviço",
    "en": "The service's client id and secret",
}
MORE: dict[Language, str] = {"pt": "e mais {count}: {link}", "en": "and {count} more: {link}"}
VALID_UNTIL: dict[Language, str] = {"pt": "token válido até {time} UTC", "en": "token valid until {time} UTC"}
UNNAMED: dict[Language, str] = {
    "pt": "conta cujo nome é um endereço de e-mail",
    "en": "account whose name is an e-mail address",
}
TEST: dict[Language, str] = {
    "pt": "Esta é uma mensagem de teste. É por aqui que o serviço avisa quando uma conta precisa de alguém.",
    "en": "This is a test message. This is where the service tells when an account needs somebody.",
}
BETWEEN = "\n\n— English —\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is sent: a line and a text, both plain."""

    title: str
    body: str


def test(origin: str) -> Message:
    """Return the message that a person asked for to see it arrive. `origin`: where the service is reached."""
    return Message(
        title="RD Station: teste · test",
        body=BETWEEN.join(f"{TEST[language]}\n{origin}/notifications" for language in ("pt", "en")),
    )


def of_incidents(told: Sequence[Told], origin: str) -> Message:
    """Return the message that tells of these incidents, in the order of `incidents.told_in`."""
    begun = sum(count for recovered, count in _counts(told) if not recovered)
    ended = sum(count for recovered, count in _counts(told) if recovered)
    return Message(
        title=_title(begun, ended), body=BETWEEN.join(_body(told, origin, lang) for lang in ("pt", "en"))
    )


def _counts(told: Sequence[Told]) -> list[tuple[bool, int]]:
    by_kind = {(item.recovered, item.kind): item.of_its_kind for item in told}
    return [(recovered, count) for (recovered, _), count in by_kind.items()]


def _title(begun: int, ended: int) -> str:
    if begun:
        return f"RD Station: atenção necessária ({begun}) · needs attention ({begun})"
    return f"RD Station: recuperado ({ended}) · recovered ({ended})"


def _body(told: Sequence[Told], origin: str, language: Language) -> str:
    parts = []
    for (recovered, kind), group in groupby(told, key=lambda item: (item.recovered, item.kind)):
        named = list(group)
        lines = [ENDED[language] if recovered else BEGUN[kind][language]]
        lines += [_line(item, origin, language) for item in named]
        if (left := named[0].of_its_kind - len(named)) > 0:
            lines.append("- " + MORE[language].format(count=left, link=f"{origin}/"))
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _line(item: Told, origin: str, language: Language) -> str:
    if item.account_id is None:
        return f"- {SETTINGS[language]}: {origin}/"
    shown, path = _called(item.account_id, item.name, language)
    if item.kind == "expiring" and not item.recovered and item.expires_at is not None:
        shown += ", " + VALID_UNTIL[language].format(time=f"{item.expires_at.astimezone(UTC):%Y-%m-%d %H:%M}")
    return f"- {shown}: {origin}/{path}"


def _called(account_id: str, name: str | None, language: Language) -> tuple[str, str]:
    """Return what an account is called in a message, and the path of its page."""
    company = None if name is None or names_a_person(name) else name
    if names_a_person(account_id):
        return company or UNNAMED[language], ""
    return f"{company} ({account_id})" if company else account_id, f"accounts/{quote(account_id, safe='')}"
