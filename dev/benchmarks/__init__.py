"""The benchmarks of scripts/bench. They measure ratios within one run, since absolute figures depend on the machine."""
