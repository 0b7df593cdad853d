"""Notifies people when an account needs attention: incidents, messages and their deliveries."""
