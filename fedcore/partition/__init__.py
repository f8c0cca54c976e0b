"""Deal one dataset out to several devices, to study federations that differ more or less.

Every split gives each row to exactly one device and depends on its seed alone.
``python -m fedcore.partition`` draws one.
"""

from fedcore.partition.kinds import KINDS, SYNTAX, Parts, parse, partition
from fedcore.partition.split import Split, Wanted, split

__all__ = ["KINDS", "SYNTAX", "Parts", "Split", "Wanted", "parse", "partition", "split"]
