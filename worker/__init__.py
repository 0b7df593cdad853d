"""`python -m worker`: the name by which Procfile, systemd and people start the worker."""
