"""What pruning costs and buys, measured."""
