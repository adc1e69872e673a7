"""From an event log to a new version: dataset, windows, recipe, the loop, checkpoints, validation."""
