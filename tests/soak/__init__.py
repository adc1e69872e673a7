"""What do swaps of the model cost under traffic, and is every list right? `make soak SWAPS=200`."""
