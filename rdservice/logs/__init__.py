"""The format of log lines, and the redaction of secrets."""
