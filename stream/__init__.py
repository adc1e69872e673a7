"""Where I/O happens: Kafka, clock, signals, settings, command line, composition root. Imports `state` and `model`;
nothing imports it.
"""
