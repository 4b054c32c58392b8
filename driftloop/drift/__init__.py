"""Drift: statistics of a window against a reference, what is normal for them, and what is not. Pure: no I/O here."""
