"""Makes the Grafana dashboard, monitoring/grafana/rdservice.json.

`rows` says what it shows, `alert_thresholds` reads the alert rules, `build` makes Grafana's objects of both.
"""
