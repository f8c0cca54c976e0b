"""Kills the processes of a real site at drawn moments and compares what its jobs end with."""
