"""Versions side by side on an event log: targets, metrics, significance, probes, the report."""
