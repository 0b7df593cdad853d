"""`python -m worker`: the command with which the Procfile, systemd and people start the worker."""
