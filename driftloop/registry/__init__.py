"""The MLflow model registry: versions, aliases, loading a model, rolling back."""
