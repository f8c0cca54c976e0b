"""Studies: a grid of methods, splits and seeds, simulated, tabled and drawn."""
