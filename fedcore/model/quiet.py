"""Suppress notices and progress bars of libraries."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

CHATTY = ("torchao", "bitsandbytes", "torch.utils._pytree", "transformers")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Import transformers or peft and load models without their notices and progress bars.

    One of them warns that FLAN-T5's output layer is not tied to the embedding, which is intended.
    """
    loggers = [logging.getLogger(name) for name in CHATTY]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            with _no_bars():
                yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextmanager
def _no_bars() -> Iterator[None]:
    from transformers.utils import logging as hub_logging

    had_progress_bar = hub_logging.is_progress_bar_enabled()
    level = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()
    hub_logging.disable_progress_bar()
    try:
        yield
    finally:
        hub_logging.set_verbosity(level)
        if had_progress_bar:
            hub_logging.enable_progress_bar()
