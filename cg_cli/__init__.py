"""cg: batch video question answering with token pruning."""

__version__ = "0.1.0"
