"""What the web processes and the worker share, and the web application itself."""
