"""Runs inside Flower, by an interpreter of its own."""
