"""Metrics, summed over all processes of the service.

`definitions` counts in the memory of a process, `flusher` adds the counts to the tables of `store`, and `state` holds
the gauges. `rdservice.rdstation.call_metrics` counts calls to RD Station; `rdservice.web.api.exposition` writes the
sums in the text format of Prometheus.
"""
