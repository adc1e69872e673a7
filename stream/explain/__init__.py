"""One list again, with what led to it: the same step over the interactions of one user."""
