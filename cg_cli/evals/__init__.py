"""Accuracy: published benchmarks, what counts as right, and scores with their intervals."""
