"""Removes secrets and personal data from text: log lines and the diagnosis's report.

This is the second safeguard. The first is to leave them out when a text is built.
"""

import base64
import json
import re
from collections.abc import Callable, Iterable
from urllib.parse import quote, quote_plus

import psycopg
import psycopg.conninfo

from rdservice.config import notify_urls
from rdservice.config.settings import Settings

BLOT = "[removed]"
SHORTEST_SECRET = 6
"""Shorter values occur everywhere by chance; removing them would make text unreadable."""

LOOKS_SECRET = re.compile(
    r"rdk_[a-z2-7]{8}_[\w-]+"
    r"|(?<![\w-])(?>[\w-]*?eyJ)[\w-]++\.[\w-]++(?:\.[\w-]*+)?"  # a JSON Web Token, or a signed cookie
    r"|(?i:(?<=bearer )[\w.~+/=-]{8,})"
    r"|(?<=://)[^\s/:@]*+:[^\s/@]++(?=@)"  # user and password in a URL
    r"|(?<![\w.+-])[\w.+-]++(?:@|%40)[\w-]++(?:\.[\w-]++)++"
    r"|\+[1-9][0-9](?:[ ().-]{0,2}[0-9]){7,13}"  # a telephone number with a country code
)
"""Each alternative starts at a word boundary and never backtracks, so the search takes linear time."""
DDD = "(?:1[1-9]|2[12478]|3[1-578]|4[1-9]|5[1345]|6[1-9]|7[134579]|[89][1-9])"
"""Area codes of Brazil."""
GAP = "[ \\u00a0\\u2010-\\u2013-]"
MOBILE = f"9{GAP}?[0-9]{{4}}{GAP}?[0-9]{{4}}"
LANDLINE = f"[2-5][0-9]{{3}}{GAP}?[0-9]{{4}}"
PERSONAL_NUMBER = re.compile(
    # The first look-ahead is there for speed. Not within a word, the fraction of a number, or a UUID.
    r"(?=[0-9(])(?<![A-Za-z0-9])(?<![0-9]\.)(?<![0-9A-Fa-f]{4}-)"
    "(?:"
    rf"(?:(?:00)?55{GAP}?)?\(0?{DDD}\){GAP}?(?:{MOBILE}|{LANDLINE})"
    rf"|(?:00)?55{GAP}?0?{DDD}{GAP}?(?:{MOBILE}|{LANDLINE})"
    # Ten digits without a gap may also be a time in seconds.
    rf"|0?{DDD}(?:{GAP}?{MOBILE}|\.9[0-9]{{4}}\.[0-9]{{4}}|{GAP}[2-5][0-9]{{3}}-[0-9]{{4}})"
    r"|9[0-9]{4}-[0-9]{4}"
    r"|(?P<cpf>[0-9]{3}\.?[0-9]{3}\.?[0-9]{3}[-/]?[0-9]{2})"
    ")"
    r"(?![A-Za-z0-9])(?!\.[0-9])(?!-[0-9A-Fa-f]{4})"
)
"""Telephone numbers of Brazil, and what may be a CPF, the number of a person at the tax authority."""
NAMED_SECRET = re.compile(
    r"""(?ix)
    ( (?: \b (?: code | state ) =                                  # in the query of a callback
        | (?: \b | [_-] ) (?: token | secret | password | passwd )  # access_token, "client_secret", PGPASSWORD …
          (?: \\? ["'] )? \s* [:=] \s*
      ) (?: \\? ["'] )? )
    [^\s"'\\&,;<>{}\[\]]{6,}
    """
)


def redactor(secrets: Iterable[str]) -> Callable[[str], str]:
    """Return a function that replaces `secrets` with BLOT, and all text that looks like a token, a password, an
    e-mail address, a telephone number or a CPF."""
    forms = {form for secret in secrets if len(secret) >= SHORTEST_SECRET for form in _forms(secret)}
    exact = re.compile("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)))

    def redact(text: str) -> str:
        if forms:
            text = exact.sub(BLOT, text)
        if _may_look_secret(text):
            text = LOOKS_SECRET.sub(BLOT, text)
        text = PERSONAL_NUMBER.sub(_blot_of_number, text)
        if _may_be_named(text):
            text = NAMED_SECRET.sub(rf"\1{BLOT}", text)
        return text

    return redact


def secrets_in(settings: Settings) -> set[str]:
    """Return every secret of `settings`, in each form in which the setting may be written."""
    found = {*settings.client_secrets, *settings.metrics_tokens, settings.secret_key}
    for key in settings.encryption_keys:
        found |= {key.decode(), base64.urlsafe_b64decode(key).hex()}
    found |= notify_urls.secrets_in(settings.notify_urls)
    found.add(settings.database_url)
    found.add(str(psycopg.conninfo.conninfo_to_dict(settings.database_url).get("password") or ""))
    return found - {""}


def _forms(secret: str) -> set[str]:
    """Return the forms of `secret` in plain text, in URLs, in JSON and in the repr of a Python object."""
    return {
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
    }


def _blot_of_number(found: re.Match[str]) -> str:
    cpf = found["cpf"]
    return found.group() if cpf is not None and not _is_cpf(cpf) else BLOT


def _is_cpf(written: str) -> bool:
    """Return whether the check digits, the last two of eleven, are right."""
    digits = [int(character) for character in written if character.isdigit()]
    right = [
        sum(digit * (place + 1 - index) for index, digit in enumerate(digits[:place])) * 10 % 11 % 10
        for place in (9, 10)
    ]
    # Eleven equal digits pass the check, but are nobody's number.
    return digits[9:] == right and len(set(digits)) > 1


def _may_look_secret(text: str) -> bool:
    """Return whether LOOKS_SECRET can match: each of its alternatives needs one of these substrings.

    The regular expression costs many times more, and most lines, above all those of the access log, have none of them.
    """
    return (
        "@" in text
        or "%40" in text
        or "rdk_" in text
        or "eyJ" in text
        or "+" in text
        or "bearer " in text.lower()
    )


def _may_be_named(text: str) -> bool:
    """Return whether NAMED_SECRET can match."""
    if "=" not in text and ":" not in text:
        return False
    lower = text.lower()
    return "token" in lower or "secret" in lower or "passw" in lower or "code=" in lower or "state=" in lower
