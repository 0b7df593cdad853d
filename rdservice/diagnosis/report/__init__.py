"""Presents the diagnosis: on a terminal, in a file, and on pages."""
