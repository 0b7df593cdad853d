"""The commands of this repository, and the modules that they share with the tests."""
