"""The worker process: renews tokens before they expire."""
