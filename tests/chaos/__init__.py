"""Faults of every kind over the whole system, and a checker that knows what has to have come of it: `make chaos`."""
