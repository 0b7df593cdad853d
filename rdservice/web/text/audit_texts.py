"""The audit page's texts for actions, authors and details, in the reader's language."""

from rdservice.access.audit import Kind
from rdservice.web.text.languages import gettext


def action_words(action: str) -> str:
    """Return the text for an action; the action's name if this version does not know it."""
    words = {
        "account_connected": gettext("Account connected"),
        "tokens_uploaded": gettext("Tokens uploaded"),
        "tokens_refreshed": gettext("Tokens renewed manually"),
        "account_disconnected": gettext("Account disconnected"),
        "account_renamed": gettext("Account renamed"),
        "key_created": gettext("API key created"),
        "key_revoked": gettext("API key revoked"),
        "operator_created": gettext("Operator added"),
        "operator_removed": gettext("Operator removed"),
        "password_reset": gettext("Password reset"),
        "password_changed": gettext("Own password changed"),
        "logged_in": gettext("Logged in"),
        "login_failed": gettext("Log-in failed"),
        "values_encrypted": gettext("Stored values encrypted again"),
        "leads_exported": gettext("Leads exported"),
        "erasure_begun": gettext("Erasure of a person started"),
        "person_erased": gettext("Person erased"),
        "erasure_reapplied": gettext("Earlier erasure repeated"),
        "events_subscribed": gettext("Subscribed to lead events"),
        "events_unsubscribed": gettext("Subscription to lead events ended"),
        "notification_tested": gettext("Test notification sent"),
    }
    return words.get(action, action)


def actor_words(kind: Kind, name: str | None) -> str:
    """Return the text for an author. `kind` and `name` as in `rdservice.access.audit.Author`."""
    if kind == "operator":
        return str(name)
    if kind == "key":
        return gettext("API key %(name)s", name=str(name))
    if kind == "command":
        return gettext("Command line (%(name)s)", name=str(name))
    return gettext("Unidentified person")


def detail_words(name: str, value: object) -> str:
    """Return the text for a detail of an entry; its name and value if this version does not know it."""
    if name == "verified":
        return gettext("checked with RD Station") if value else gettext("not checked with RD Station")
    if name in ("full", "resumed"):
        return _export_words(name, bool(value))
    if name == "person" and isinstance(value, list):
        # Hashes tell a reader nothing; the export has them.
        value = len(value)
    words = {
        "person": gettext("keyed hashes"),
        "erased_at": gettext("erased at"),
        "reapplied": gettext("earlier erasures"),
        "deleted_at_rd_station": gettext("leads deleted at RD Station"),
        "failed_at_rd_station": gettext("accounts that failed"),
        "name": gettext("name"),
        "replaced": gettext("in place of"),
        "replaced_by": gettext("replaced by"),
        "scopes": gettext("scopes"),
        "key": gettext("under the key"),
        "accounts": gettext("accounts"),
        "removed": gettext("rows deleted"),
        "left": gettext("left"),
        "format": gettext("format"),
        "previous": gettext("previous name"),
    }
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"{words.get(name, name)}: {text}"


def _export_words(name: str, value: bool) -> str:
    if name == "full":
        return gettext("full records") if value else gettext("as listed")
    return gettext("from where it stopped") if value else gettext("from the beginning")
