"""Pruning: masks, methods, sensitivity, retraining and accuracy."""
