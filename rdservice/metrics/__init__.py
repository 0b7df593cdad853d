"""What the service counts, in one sum over all its processes.

`definitions` counts in the memory of the process, `api_calls` says how a call to RD Station counts, `flusher` adds the
counts to the tables of `store`, and `exposition` writes the sums, with the `state`, as Prometheus reads them.
"""
