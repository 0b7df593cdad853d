"""RD Station's HTTP API: calls, deadlines, streamed bodies, token responses and the rate budget."""
