"""A log through the worker's own step, without Kafka: what the worker would have done, and how good that was."""
