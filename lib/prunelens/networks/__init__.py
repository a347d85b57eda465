"""Networks: architectures, weights, hooks, compaction and costs."""
