"""The worker: refreshes tokens before they expire, tidies up, asks for missing names, and sends notifications."""
