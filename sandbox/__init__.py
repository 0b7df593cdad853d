"""An imitation of RD Station Marketing's API, for trying, testing and measuring the service.

It is never part of a deployment. `sandbox.core.Sandbox` implements the behaviour without sockets, for simulations in
one process; `python -m sandbox` serves it over HTTP.
"""
