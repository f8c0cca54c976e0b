"""Every weight trained: the tuned model is what there is to take."""

from __future__ import annotations

from fedcore.export.contract import Export

ROW = Export()
