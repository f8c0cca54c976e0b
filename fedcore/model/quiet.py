"""Suppress notices and progress bars of libraries."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

CHATTY = ("torchao", "bitsandbytes", "torch.utils._pytree", "transformers")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Import transformers or peft and load models without their notices and progress bars.

    One of them warns that FLAN-T5's output layer is not tied to the embedding, which is intended.
    """
    with ExitStack() as stack:
        for name in CHATTY:
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", FutureWarning)
        from transformers.utils import logging as hub_logging

        stack.callback(hub_logging.set_verbosity, hub_logging.get_verbosity())
        if hub_logging.is_progress_bar_enabled():
            stack.callback(hub_logging.enable_progress_bar)
        hub_logging.set_verbosity_error()
        hub_logging.disable_progress_bar()
        yield
