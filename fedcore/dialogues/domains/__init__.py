"""One module per domain: `play(scene)` speaks the dialogue and returns its summary.

`HELD_OUT = True` keeps a domain out of the pre-training of the carried checkpoint. To add a domain,
copy a neighbour.
"""
