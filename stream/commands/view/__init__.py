"""`rec2pm view`: every user's newest list over HTTP, and a page that shows one as it changes."""
