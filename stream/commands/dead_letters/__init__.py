"""`rec2pm dead-letters list | show | replay`."""
