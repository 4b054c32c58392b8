"""The predictor: answers requests with the version that the alias names, and publishes each answer as an event."""
