"""What Prefect's own pages show of a run. For watching only: no failure here ever stops a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

MAX_ROWS = 200


@contextmanager
def _never_fatal() -> Iterator[None]:
    # The API may be away or overloaded; the catalog, not Prefect, is the evidence.
    try:
        yield
    except Exception as error:
        logging.getLogger(__name__).warning("Prefect did not take an artifact: %s", error)


def progress(key: str, description: str) -> Callable[[float], None]:
    """A progress bar; the function sets it, 0 to 100."""
    shown: list[UUID] = []
    with _never_fatal():
        shown.append(cast(UUID, create_progress_artifact(0.0, key=key, description=description)))

    def update(percent: float) -> None:
        with _never_fatal():
            for artifact in shown:
                update_progress_artifact(artifact, percent)

    return update


def table(rows: Sequence[dict[str, Any]], key: str, description: str) -> None:
    """A table of at most 200 rows; the description says when there are more."""
    more = f" (the first {MAX_ROWS} of {len(rows)})" if len(rows) > MAX_ROWS else ""
    with _never_fatal():
        create_table_artifact(list(rows[:MAX_ROWS]), key=key, description=description + more)


def markdown(text: str, key: str, description: str) -> None:
    """A page of markdown."""
    with _never_fatal():
        create_markdown_artifact(text, key=key, description=description)
