"""Products of low-rank factors: their sums, best approximations, and the rules that serve them."""
