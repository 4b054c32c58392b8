"""Model evaluation: metrics, bootstrap intervals, and performance estimated without labels. Pure: no I/O here."""
