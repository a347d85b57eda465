"""prunelens: how pruning changes what a network can do and how well we can understand it."""
