"""Drift detection: statistics of a window against a reference, their calibration, and scores. Pure: no I/O here."""
