"""Units: what activates them, how they score, and what they look like."""
