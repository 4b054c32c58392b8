"""Dashboards as code: ``python -m grafana.generate`` writes them and Prometheus consoles of the same queries."""
