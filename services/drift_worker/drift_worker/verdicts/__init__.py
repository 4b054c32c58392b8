"""Verdicts on windows: drift, quality, and replays of both."""
