"""Prometheus, Grafana and Alertmanager beside a running service, on this machine."""
