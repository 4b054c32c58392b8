"""Logs, metrics, traces and health checks of a service."""
