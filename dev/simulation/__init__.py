"""A year of the service, simulated: the real code for refreshes on a real PostgreSQL, in virtual time, under faults.

What is real: `rdservice.tokens`, `rdservice.worker.auto_refresh`, `rdservice.rdstation.client` down to the adapter of
`requests`, `rdservice.accounts`, all their SQL, and the responses of `sandbox.core.Sandbox`. What is simulated: time,
threads, the network, crashes, people.

One thread runs at a time and control changes only at defined points, so a run is a function of its seed.
"""
