"""Programs of maintainers: checks, measurements, simulation, monitoring, pictures."""
