"""A FLARE client that sends back what it was sent."""

import nvflare.client as flare

flare.init()
while flare.is_running():
    model = flare.receive()
    model.metrics = {"loss": 1.0}
    flare.send(model)
