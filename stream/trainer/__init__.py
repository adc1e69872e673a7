"""`rec2pm trainer`: new interactions become a log, and the log becomes new versions."""
