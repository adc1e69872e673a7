"""The recipes that come with this program, as TOML files; `model.recipe` reads them."""
