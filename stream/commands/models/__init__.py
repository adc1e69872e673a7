"""`rec2pm models`: versions of models, and which of them serves."""
