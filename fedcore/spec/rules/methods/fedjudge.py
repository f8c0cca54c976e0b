"""FedJudge goes with every other option."""

from __future__ import annotations

from fedcore.spec.rules.contract import Rules

ROW = Rules()
