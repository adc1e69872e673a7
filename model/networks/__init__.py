"""What is computed: the kinds of network, what they are made of, and how each is served."""
