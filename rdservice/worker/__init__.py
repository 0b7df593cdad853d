"""The worker: refreshes tokens before they expire, tidies up, and sends notifications."""
