"""Does a worker keep its promises while everything around it breaks? `make crash SECONDS=60 SEED=0`."""
