"""I/O and composition: Kafka, clock, signals, settings, command line. `state` and `model` do not import it."""
