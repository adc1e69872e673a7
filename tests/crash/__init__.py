"""Does everything that a worker promises hold while whatever is around it breaks? `make crash SECONDS=60 SEED=0`."""
