"""What an operator types. Nothing else of `stream` imports it."""
