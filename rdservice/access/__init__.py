"""Who may use the service: operators, their sessions, API keys, and throttling of failed attempts."""
