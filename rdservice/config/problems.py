"""Problems in the settings, as values. `rdservice.text.settings_problems` has their sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Code = Literal[
    "api_url_has_path",
    "api_url_not_absolute",
    "api_url_not_https",
    "client_id_holds_url",
    "client_secret_holds_url",
    "client_secret_is_client_id",
    "client_secret_white_space",
    "database_url_implausible",
    "database_url_scheme",
    "database_url_unparsable",
    "environment_unknown",
    "file_not_utf8",
    "file_unreadable",
    "key_base64_length",
    "key_empty",
    "key_form",
    "key_hexadecimal_length",
    "key_incomplete",
    "key_quotation_mark",
    "key_white_space",
    "not_a_whole_number",
    "not_set",
    "notify_url_e_mail",
    "notify_url_no_scheme",
    "notify_url_unusable",
    "notify_url_web_address",
    "only_commas",
    "redirect_uri_holds_secret",
    "redirect_uri_local_host",
    "redirect_uri_not_absolute",
    "redirect_uri_not_https",
    "redirect_uri_wrong_path",
    "scope_form",
    "secret_key_short",
    "undecodable",
    "white_space",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem. It never contains a variable's value, which may be a secret.

    `variable` is None when the problem concerns a whole file; `example` is None when there is no value to show.
    `facts` fill the sentence's placeholders: the position in a list (`entry`), bounds, lengths, the `command` that
    generates a value.
    """

    variable: str | None
    code: Code
    facts: Mapping[str, str | int] = field(default_factory=dict)
    example: str | None = None


class SettingsError(Exception):
    """The settings are invalid. `problems` lists every problem."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{problem.variable or 'file'}: {problem.code}" for problem in problems))
        self.problems = tuple(problems)
