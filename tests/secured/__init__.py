"""A Kafka with TLS, SASL and an authorizer, and what rec2pm says about each mistake in front of it."""
