"""Who may use the service: operators and their sessions, API keys, and the throttling of failed attempts."""
