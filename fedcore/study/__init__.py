"""Studies: grids of simulations over methods, splits and seeds, with tables and plots."""
