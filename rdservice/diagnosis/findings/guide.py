"""Who must act on a finding, and which action of the service's pages helps."""

from typing import Literal, NamedTuple

Who = Literal["operator", "server", "rdstation", "nobody"]
"""`operator`: a user of the status page who may give consent in RD Station; `server`: the administrator of this service
(its settings, processes, database, network, and the app in the RD Station App Store); `rdstation`: RD Station's
support; `nobody`: it resolves itself."""
Action = Literal["connect", "refresh", "upload", "none"]
"""`connect`: "Connect again" (`/rd/login?account_id=`); `refresh`: "Refresh now"; `upload`: new tokens; `none`: no
button of this service helps."""


class Guide(NamedTuple):
    """Who must act on a finding, and which button of the pages helps."""

    who: Who
    action: Action


_SERVER = Guide("server", "none")
_CONNECT = Guide("operator", "connect")
_RDSTATION = Guide("rdstation", "none")
_WAIT = Guide("nobody", "none")

GUIDE: dict[str, Guide] = {
    "redirect_uri_holds_secret": _SERVER,
    "client_secret_holds_url": _SERVER,
    "redirect_uri_local_host": _SERVER,
    "redirect_uri_not_https": _SERVER,
    "redirect_uri_wrong_path": _SERVER,
    "settings_broken": _SERVER,
    "settings_broken/file": _SERVER,
    "settings_broken/encoding": _SERVER,
    "database_unreachable": _SERVER,
    "database_unreachable/failing": _SERVER,
    "migrations_pending": _SERVER,
    "database_read_only": _SERVER,
    "key_missing": _SERVER,
    "value_damaged": _CONNECT,
    "value_damaged/earlier": Guide("operator", "refresh"),
    "token_not_encrypted": _SERVER,
    "worker_not_running": _SERVER,
    "worker_not_running/never": _SERVER,
    "clock_skew": _SERVER,
    "clock_skew/behind": _SERVER,
    "clock_skew/machine": _SERVER,
    "clock_skew/machine_behind": _SERVER,
    "credentials_refused": _SERVER,
    "credentials_refused/swapped": _SERVER,
    "credentials_refused/id_form": _SERVER,
    "credentials_refused/earlier": _SERVER,
    "rdstation_unreachable": _SERVER,
    "rdstation_unreachable/dns": _SERVER,
    "rdstation_unreachable/tcp": _SERVER,
    "rdstation_unreachable/tls": _SERVER,
    "rdstation_unreachable/silent": _RDSTATION,
    "rdstation_unreachable/earlier": _SERVER,
    "forbidden_by_gateway": _SERVER,
    "rdstation_failing": _RDSTATION,
    "rdstation_failing/earlier": _WAIT,
    "rdstation_unexpected": _SERVER,
    "rdstation_unexpected/earlier": _SERVER,
    "refused_together": _RDSTATION,
    "redirect_uri_not_registered": _SERVER,
    "no_account": _CONNECT,
    "no_account/unknown": _CONNECT,
    "reauthorization_required": _CONNECT,
    "reauthorization_required/answer_lost": _CONNECT,
    "reauthorization_required/no_refresh_token": _CONNECT,
    "reauthorization_required/another_account": _CONNECT,
    "another_account": Guide("operator", "upload"),
    "upload_refused": Guide("operator", "upload"),
    "refresh_refused": Guide("operator", "refresh"),
    "token_expired": Guide("operator", "refresh"),
    "audience_old": _CONNECT,
    "scope_missing": _CONNECT,
    "unauthorized_api": _CONNECT,
    "unauthorized_api/same_token": Guide("operator", "refresh"),
    "plan_without_api": _RDSTATION,
    "forbidden_api": _CONNECT,
    "rate_limited": _SERVER,
    "rate_limited/budget": _SERVER,
    "rate_limited/earlier": _WAIT,
    "refresh_backing_off": _WAIT,
    "unverified": _WAIT,
    "notifications_failing": _SERVER,
    "notifications_failing/unusable": _SERVER,
}
