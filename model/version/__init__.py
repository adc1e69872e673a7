"""A trained model as a file that a worker loads. With model.errors, it is all that a worker needs of `model`."""
