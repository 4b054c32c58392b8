"""The producer: streams a use case's rows to the predictor, and their outcomes once they would have been known."""
