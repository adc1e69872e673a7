"""Which version should serve: promotions as records, and what decides about them."""
