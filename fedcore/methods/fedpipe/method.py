"""FedPipe on a device: plain training of what was planned (``fedcore.methods.fedpipe.probe``)."""

from __future__ import annotations

from fedcore.methods.training import MethodTraining

ROW = MethodTraining()
