"""Kill the processes of a real site at random moments and compare the final weights."""
