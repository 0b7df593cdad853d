"""The commands of this repository: scripts/start, scripts/test, and what they and the tests are made of."""
