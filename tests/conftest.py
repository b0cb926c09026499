"""What all tests share."""

from __future__ import annotations

import pytest

LONG = ("test_workflow", "test_few_labels", "test_arrivals", "test_preview", "test_interrupts")
"""Modules that run the workflow: first, so that of two processes none is left alone with them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONG)
