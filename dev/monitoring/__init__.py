"""Runs Prometheus, Grafana and Alertmanager on this machine, for a running service."""
