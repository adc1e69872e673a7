"""`rec2pm demo`: broker, topics, model, traffic, two workers, and what came out, in one terminal."""
