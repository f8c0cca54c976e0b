"""The whole system on one machine, each part a separate process: for the demo and the tests."""
