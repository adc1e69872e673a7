"""The recipes that come with this program, as TOML files; `model.training.recipe` reads them."""
