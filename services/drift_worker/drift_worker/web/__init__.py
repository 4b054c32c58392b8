"""Web pages and reports about verdicts."""
