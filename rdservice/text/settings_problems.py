"""The mistakes of `rdservice.config.problems` in words."""

from collections.abc import Mapping, Sequence

from rdservice.config.problems import Code, Problem
from rdservice.text.catalogue import Language, message, translated, translated_plural

SENTENCES: Mapping[Code, str] = {
    "api_url_has_path": message("%(variable)s must have no path: only scheme, host and port."),
    "api_url_not_absolute": message("%(variable)s must be an absolute http(s) URL without credentials."),
    "api_url_not_https": message("%(variable)s must use https: tokens and the client secret travel on it."),
    "client_id_holds_url": message("%(variable)s holds a URL; it must be the app's client_id."),
    "client_secret_holds_url": message(
        "%(variable)s holds a URL: were the secret and RDSTATION_REDIRECT_URI swapped?"
    ),
    "client_secret_is_client_id": message("%(variable)s is the same as RDSTATION_CLIENT_ID."),
    "only_commas": message("%(variable)s holds only commas."),
    "client_secret_white_space": message(
        "%(variable)s contains white space; separate several secrets with commas."
    ),
    "database_url_implausible": message(
        "%(variable)s has no plausible host, port or database (is the password percent-encoded?)."
    ),
    "database_url_scheme": message("%(variable)s must begin with postgres:// or postgresql://."),
    "database_url_unparsable": message(
        "%(variable)s cannot be parsed (are special characters percent-encoded?)."
    ),
    "environment_unknown": message("%(variable)s must be production, development or not set."),
    "file_not_utf8": message("%(file)s cannot be read: save it in the encoding UTF-8."),
    "file_unreadable": message("%(file)s cannot be read: check its permissions (%(error)s)."),
    "key_base64_length": message(
        "%(variable)s: entry %(entry)s is base64 of %(length)s bytes, not of %(needed)s."
    ),
    "key_empty": message("%(variable)s: entry %(entry)s is empty: there is a comma too many."),
    "key_form": message(
        "%(variable)s: entry %(entry)s is neither a Fernet key nor %(needed)s hexadecimal digits."
    ),
    "key_hexadecimal_length": message(
        "%(variable)s: entry %(entry)s has %(length)s hexadecimal digits, not %(needed)s."
    ),
    "key_incomplete": message("%(variable)s: entry %(entry)s lacks the = at its end: copy the whole key."),
    "key_quotation_mark": message("%(variable)s: entry %(entry)s contains a quotation mark: leave it out."),
    "key_white_space": message(
        "%(variable)s: entry %(entry)s contains white space; separate several keys with commas."
    ),
    "not_a_whole_number": message("%(variable)s must be a whole number from %(low)s to %(high)s."),
    "not_set": message("%(variable)s is not set."),
    "notify_url_e_mail": message(
        "%(variable)s: entry %(entry)s is an e-mail address; write mailtos://user:password@host?to=address."
    ),
    "notify_url_no_scheme": message(
        "%(variable)s: entry %(entry)s has no scheme, such as mailtos:// or slack://."
    ),
    "notify_url_unusable": message(
        "%(variable)s: entry %(entry)s is no URL that apprise can use: its scheme is unknown, or a part is missing."
    ),
    "notify_url_web_address": message(
        "%(variable)s: entry %(entry)s is an ordinary web address; for a webhook write jsons:// in place of https://,"
        " or json:// in place of http://."
    ),
    "redirect_uri_holds_secret": message(
        "%(variable)s holds a secret or something that looks like one; it must be the callback URL."
    ),
    "redirect_uri_local_host": message(
        "%(variable)s names a local host, to which RD Station cannot send operators back."
    ),
    "redirect_uri_not_absolute": message(
        "%(variable)s must be the absolute URL of %(path)s on this service."
    ),
    "redirect_uri_not_https": message("%(variable)s must use https:// (http:// only works for local hosts)."),
    "redirect_uri_wrong_path": message("%(variable)s must end in %(path)s, with nothing after it."),
    "scope_form": message(
        "%(variable)s must be names of scopes, in lower-case letters, separated by spaces."
    ),
    "secret_key_short": message("%(variable)s is shorter than %(needed)s characters."),
    "undecodable": message(
        "%(variable)s contains a NUL character or bytes that are not UTF-8. Enter its value again."
    ),
    "white_space": message("%(variable)s contains white space."),
}


def sentence(language: Language, problem: Problem) -> str:
    """Return what is wrong, as a whole sentence."""
    return translated(language, SENTENCES[problem.code], variable=problem.variable, **problem.facts)


def example(language: Language, problem: Problem) -> str:
    """Return a value that would do, or how to make one; an empty text where there is neither."""
    if "command" in problem.facts:
        return translated(language, "the output of %(command)s", command=problem.facts["command"])
    return problem.example or ""


def lines(language: Language, problems: Sequence[Problem]) -> list[str]:
    """Return each problem with its example, as an item of a list on a terminal."""
    return [f"  - {_with_example(language, problem)}" for problem in problems]


def report(language: Language, problems: Sequence[Problem]) -> str:
    """Return all problems as a list for a terminal."""
    title = translated_plural(
        language,
        "Invalid settings (%(count)s problem):",
        "Invalid settings (%(count)s problems):",
        len(problems),
    )
    return "\n".join([title, *lines(language, problems)])


def _with_example(language: Language, problem: Problem) -> str:
    told, value = sentence(language, problem), example(language, problem)
    if not value:
        return told
    shown = translated(language, "Example: %(variable)s=%(value)s", variable=problem.variable, value=value)
    return f"{told} {shown}"
