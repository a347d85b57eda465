"""Image sets: where images come from, and how networks get them."""
