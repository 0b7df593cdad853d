"""Telling people when an account needs them: what has to be told, the messages, and their way to whoever reads them."""
