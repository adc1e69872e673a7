"""`rec2pm state import`: a file of states becomes the changelog of a fresh application."""
