"""What driftloop is measured beside: environments of their own, and the few lines that each needs to serve."""
