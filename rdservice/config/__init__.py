"""The settings of a process, where they come from, and what is wrong with them."""
