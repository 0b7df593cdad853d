"""Hardening that every process of the service applies to itself at its start."""

import resource


def leave_no_core_file() -> None:
    """Disable core files: an image of the memory would hold the encryption keys and recently used tokens."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
