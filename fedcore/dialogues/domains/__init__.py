"""One module per domain: `play(scene)` writes a dialogue into the scene and returns its summary.

`HELD_OUT = True` excludes a domain from the pre-training of the packaged checkpoint. To add a
domain, copy a module.
"""
