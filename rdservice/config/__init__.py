"""The settings of a process: their sources, their values and the problems in them."""
