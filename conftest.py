"""Fixtures of the tests: pytester runs pytest within pytest."""

pytest_plugins = ["pytester"]
