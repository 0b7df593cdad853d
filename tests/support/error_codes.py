"""The closed list of error codes, as the code has it."""

from rdservice import errors
from rdservice.errors import RdServiceError
from rdservice.web.http.problems import FRAMEWORK


def error_codes() -> dict[str, set[int]]:
    """Return every error code with the statuses that it comes with."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes: dict[str, set[int]] = {}
    for kind in kinds:
        if issubclass(kind, RdServiceError):
            codes.setdefault(kind.code, set()).add(kind.status)
    for status, (code, _, _) in FRAMEWORK.items():
        codes.setdefault(code, set()).add(status)
    return codes
