"""What every process of the service does for itself before anything else."""

import resource


def leave_no_core_file() -> None:
    """Let a crash leave no image of the memory on the disk: it holds the keys, and every token that was just used."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
