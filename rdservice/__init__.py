"""What the web processes and the worker share, and the web application itself."""

__version__ = "0.1.0"
