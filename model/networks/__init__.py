"""What is computed: a shape, blocks, the kinds of memory, and how each is served."""
