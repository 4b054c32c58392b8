"""Windows and slices of events: how they close, and their archive."""
