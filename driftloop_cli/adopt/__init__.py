"""Adopt a registered model: make a version that is served and watched of whatever MLflow has.

No service imports this package.
"""
