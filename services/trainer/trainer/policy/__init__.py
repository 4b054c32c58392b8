"""The policy: when verdicts lead to a retrain."""
