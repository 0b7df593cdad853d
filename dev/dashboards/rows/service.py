"""Rows about requests to the service, and about its internals."""

from dev.dashboards.panel import COUNT, RATE, RATIO, SECONDS, Panel, Query, Row


def _errors(window: str) -> Query:
    return Query(
        expression=f'job:rdservice_request_errors:ratio_rate{window}{{job=~"$job"}}',
        legend=f"{{{{job}}}} {window}",
    )


REQUESTS = Row(
    title="Requests to this service",
    panels=(
        Panel(
            title="Requests by route",
            description="Requests a second by route.",
            unit=RATE,
            width=12,
            queries=(
                Query(
                    expression="sum by (job, url_rule) "
                    '(rate(flask_http_request_duration_seconds_count{job=~"$job"}[$__rate_interval]))',
                    legend="{{job}} {{url_rule}}",
                ),
            ),
        ),
        Panel(
            title="Requests by status",
            description="Requests a second by HTTP status. Only what happened is shown.",
            unit=RATE,
            width=12,
            queries=(
                Query(
                    expression="sum by (job, status) "
                    '(rate(flask_http_request_total{job=~"$job"}[$__rate_interval])) > 0',
                    legend="{{job}} {{status}}",
                ),
            ),
        ),
        Panel(
            title="Requests that failed",
            description="Part of the requests that ended with a 5xx status, over the windows of the alerts; scrapes "
            "and probes that went well are left out. Critical is judged by 1 h and 5 m, warning by 6 h and 30 m. The "
            "alerts want ten failures as well. Prometheus computes it by the rules.",
            unit=RATIO,
            width=8,
            queries=tuple(_errors(window) for window in ("1h", "5m", "6h", "30m")),
            alerts=("RDServiceErrorBudgetBurnsFast", "RDServiceErrorBudgetBurnsSlowly"),
        ),
        Panel(
            title="Duration of requests, 95th percentile",
            description="19 of 20 requests are answered faster; scrapes and probes are left out. The alert wants "
            "twenty requests in ten minutes as well.",
            unit=SECONDS,
            width=8,
            queries=(
                Query(
                    expression="histogram_quantile(0.95, sum by (job, le) "
                    '(rate(flask_http_request_duration_seconds_bucket{url_rule!~"/healthz|/metrics|/readyz",'
                    'job=~"$job"}[$__rate_interval])))'
                ),
            ),
            alerts=("RDServiceLatencyHigh",),
        ),
        Panel(
            title="Duration by route, 95th percentile",
            description="19 of 20 requests of a route are answered faster.",
            unit=SECONDS,
            width=8,
            queries=(
                Query(
                    expression="histogram_quantile(0.95, sum by (job, url_rule, le) "
                    '(rate(flask_http_request_duration_seconds_bucket{job=~"$job"}[$__rate_interval])))',
                    legend="{{job}} {{url_rule}}",
                ),
            ),
        ),
    ),
)

INTERNALS = Row(
    title="Internals",
    panels=(
        Panel(
            title="Database",
            description="Whether the service reaches PostgreSQL. While it does not, all counters are absent.",
            kind="stat",
            unit=COUNT,
            width=4,
            queries=(Query(expression='min by (job) (rdstation_database_up{job=~"$job"})'),),
            alerts=("RDStationDatabaseDown",),
            values={0: "down", 1: "up"},
        ),
        Panel(
            title="Counts",
            description="Whether a process that responded in the last five minutes could not add its counts to the "
            "database. What it counts is missing from all other panels until it can.",
            kind="stat",
            unit=COUNT,
            width=4,
            queries=(
                Query(
                    expression="max by (job) "
                    '(max_over_time(rdstation_metrics_flush_failing{job=~"$job"}[5m]))'
                ),
            ),
            alerts=("RDServiceMetricsFlushFailing",),
            values={0: "written", 1: "not written"},
        ),
        Panel(
            title="Notifications that do not arrive",
            description="Messages of the last day that a receiver of NOTIFY_URLS has not accepted. Nobody may know of "
            "what they tell.",
            kind="stat",
            unit=COUNT,
            width=4,
            queries=(Query(expression='max by (job) (rdstation_notifications_failing{job=~"$job"})'),),
            alerts=("RDServiceNotificationsFailing",),
        ),
        Panel(
            title="Notifications",
            description="Attempts to send a notification. Failed ones are made again, for a day.",
            unit=COUNT,
            width=12,
            queries=(
                Query(
                    expression="sum by (job, result) "
                    '(increase(rdstation_notifications_total{job=~"$job"}[$__rate_interval]))',
                    legend="{{job}} {{result}}",
                ),
            ),
        ),
        Panel(
            title="Failed writes of counts",
            description="Attempts of processes to add their counts to the database that failed. They are repeated, "
            "and are seen here only once one succeeds.",
            unit=COUNT,
            width=12,
            queries=(
                Query(
                    expression="sum by (job) "
                    '(increase(rdstation_metrics_flush_failures_total{job=~"$job"}[$__rate_interval]))'
                ),
            ),
        ),
        Panel(
            title="Duration of scrapes",
            description="How long Prometheus waits for the metrics. The process that responds writes its own counts "
            "first, and gives up after four seconds.",
            unit=SECONDS,
            width=12,
            queries=(Query(expression='max by (job) (scrape_duration_seconds{job=~"$job"})'),),
        ),
        Panel(
            title="Series",
            description="Samples in one response of /metrics. Labels have closed sets of values: once every route was "
            "used it hardly grows.",
            unit=COUNT,
            width=12,
            queries=(Query(expression='max by (job) (scrape_samples_scraped{job=~"$job"})'),),
        ),
        Panel(
            title="Versions",
            description="The version that responds, and its Python.",
            kind="table",
            unit=COUNT,
            width=12,
            queries=(
                Query(
                    expression='max by (job, version, python_version) (rdstation_build_info{job=~"$job"})',
                    legend="{{version}}",
                ),
            ),
        ),
    ),
)
