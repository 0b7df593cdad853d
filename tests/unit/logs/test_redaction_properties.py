"""Whatever stands around a secret: it is not in the line any more, and looking for it takes no time."""

import string
from typing import Any

from hypothesis import assume, example, given
from hypothesis import strategies as st

from rdservice.diagnosis.report import masking
from rdservice.logs import redaction
from tests.support.outside_data import ANY_JSON, ODD_TEXTS

WORD = string.ascii_letters + string.digits + "_-"
WORDS = st.text(WORD, min_size=6, max_size=40)
KEYS = st.builds(
    "rdk_{}_{}".format,
    st.text("abcdefgh234567", min_size=8, max_size=8),
    st.text(WORD, min_size=43, max_size=43),
)
JWTS = st.builds("eyJ{}.eyJ{}.{}".format, WORDS, WORDS, WORDS)
BEARERS = st.text(WORD + ".~+/=", min_size=8, max_size=60)
NAMES = st.text(string.ascii_letters + string.digits, min_size=6, max_size=20)
EMAILS = st.builds("{}@{}.example".format, NAMES, NAMES)
SURROUNDINGS = st.one_of(
    ODD_TEXTS,
    st.lists(
        st.sampled_from(
            ["rdk_", "eyJ", "Bearer ", "@", "%40", "://", ":", "/", ".", " ", "\n", "=", '"', "a"]
        )
    ).map("".join),
)


def redact(text: str) -> str:
    """What the formatters of log lines do, without the secrets that they know."""
    return redaction.redactor([])(text)


@given(SURROUNDINGS, st.one_of(KEYS, JWTS), SURROUNDINGS)
def test_a_key_or_a_token_is_blotted_out_wherever_it_stands(before: str, secret: str, after: str) -> None:
    assume(secret[-20:] not in before + after)
    assert secret[-20:] not in redact(before + secret + after)


@given(SURROUNDINGS, BEARERS, SURROUNDINGS)
def test_what_follows_bearer_is_blotted_out(before: str, secret: str, after: str) -> None:
    assume(secret not in before + after)
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert secret not in redact(f"{before}{scheme} {secret} {after}")


@given(SURROUNDINGS, EMAILS, SURROUNDINGS)
def test_an_address_is_blotted_out_wherever_it_stands(before: str, email: str, after: str) -> None:
    for written in (email, email.replace("@", "%40")):
        assume(written not in before + after)
        assert written not in redact(before + written + after)


@given(SURROUNDINGS)
def test_the_quick_look_misses_nothing_that_the_search_would_find(text: str) -> None:
    assert redact(text) == redaction.LOOKS_SECRET.sub(redaction.BLOT, text)


PIECES = [
    "a",
    "eyJ",
    "eyJ.",
    "rdk_",
    "a.",
    "a@",
    "@a.",
    "://",
    "://:",
    "Bearer ",
    "a@a.",
    "%40",
    "-",
    "+",
    "+5",
]
PIECES += ["token", "token ", "token:", "secret=", "code=", "+55 11"]


@given(
    st.sampled_from(PIECES),
    st.sampled_from(["", "@", "%40", ".", "@a.b", ":x@"]),
)
@example("a", "@")
def test_a_long_line_costs_its_length(piece: str, end: str) -> None:
    # In steps that grow with the square of the length this would take hours, and the test's time-out would end it.
    redact(piece * (400_000 // len(piece)) + end)


SECRETS = st.lists(st.text(min_size=redaction.SHORTEST_SECRET, max_size=30), max_size=4)


@given(SECRETS, st.lists(st.one_of(SURROUNDINGS, st.integers(0, 3)), max_size=6))
def test_a_report_has_none_of_the_known_secrets(secrets: list[str], parts: list[Any]) -> None:
    text = "".join(
        secrets[part] if isinstance(part, int) and part < len(secrets) else str(part) for part in parts
    )
    shown = redaction.redactor(secrets)(text)
    # What is left between blots may spell one only by pieces of the blot itself.
    assert not any(secret in piece for piece in shown.split(redaction.BLOT) for secret in secrets)


@given(ANY_JSON, SECRETS)
def test_a_redacted_value_keeps_its_shape(value: Any, secrets: list[str]) -> None:
    def shape(node: Any) -> Any:
        if isinstance(node, dict):
            return {name: shape(member) for name, member in node.items()}
        return [shape(member) for member in node] if isinstance(node, list) else type(node)

    assert shape(masking.redacted(value, redaction.redactor(secrets))) == shape(value)
