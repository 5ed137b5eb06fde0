"""A written audit report on a campaign or a period: one HTML file that opens offline.

It holds its plots as SVG and its pictures inline, runs no script and loads nothing. Whatever comes
from briefs, files and people is escaped; catalog/report_facts.py asks, this lays out.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.as_of import metadata_as_of
from catalog.isolated import Limits, isolated_copy, select
from catalog.plots import bars, columns, distribution
from catalog.report_facts import LISTED, Facts, Rows, Scope, facts_of
from pipeline.images import ImageRefused, decode_limited
from pipeline.settings import Settings
from pipeline.store import path_of

if TYPE_CHECKING:
    from markupsafe import Markup

LIMITS = Limits(seconds=600, memory="2GB")
"""Of each question: a report may take minutes where an audit may not."""
PICTURES = 24
MOST_PICTURES = 200
_PICTURE_SIDE = 160
_PICTURE_BYTES = 8 * 2**20
"""All pictures of a report together; those beyond are left out, and the report says so."""
_TEMPLATES = Path(__file__).parent / "templates"
_OUTCOMES = {"passed": "pass", "review": "review", "blocked": "block", "failed": "failed"}
_FORMATS = {"hour": "%m-%d %H:00", "day": "%Y-%m-%d", "week": "%Y-%m-%d", "month": "%Y-%m"}


@dataclass(frozen=True)
class Integrity:
    """What a check of the catalog's ledger said. `holds` is None when none was made."""

    holds: bool | None
    statements: tuple[str, ...]


NOT_CHECKED = Integrity(None, ("The ledger was not checked for this report.",))


@dataclass(frozen=True)
class Report:
    """A report as HTML text, and how many images it is about."""

    html: str
    images: int


def report(
    settings: Settings,
    scope: Scope,
    *,
    integrity: Integrity = NOT_CHECKED,
    pictures: int = PICTURES,
    as_of: datetime | None = None,
) -> Report:
    """Writes the report on what is in `scope`, of the catalog as it is or was at `as_of` (aware).

    `pictures` (0 to 200) cleared images are shown small; those in quarantine never are. Raises
    InputError when the moment is not kept, SetupError when there is no catalog.
    """
    with metadata_as_of(settings.catalog, as_of) as (copy, moment):
        now = datetime.now(UTC)
        with isolated_copy(copy, settings.catalog, LIMITS, as_of) as connection:

            def read(sql: str, **parameters: Any) -> Rows:
                found = select(connection, sql, parameters, LIMITS, settings.catalog)
                rows: Rows = found.table.to_pylist()
                return rows

            facts = facts_of(read, scope, min(max(pictures, 0), MOST_PICTURES))
            (snapshot,) = read("SELECT max(snapshot_id) AS number, max(snapshot_time) AS at "
                               "FROM ducklake_snapshots('lake')")  # fmt: skip
    html = _page(
        scope=scope,
        facts=facts,
        plots=_plots(facts),
        pictures=list(_pictures(settings, facts.pictures)),
        integrity=integrity,
        as_of=moment.moment if moment else None,
        snapshot=snapshot,
        written_at=now,
        platemark=version("platemark"),
        listed=LISTED,
        accelerator_seconds=facts.totals["seconds"],
    )
    return Report(html, facts.totals["images"])


def _page(**said: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": lambda value: "–" if value is None else f"{value:,}",
        "real": lambda value: "–" if value is None else f"{value:,.4g}",
        "share": lambda value: "–" if value is None else f"{value:.1%}",
        "when": _when,
        "digest": lambda value: str(value or "–")[:16],
    }
    return environment.get_template("report.html").render(**said)


def _plots(facts: Facts) -> dict[str, Markup | list[Markup] | None]:
    """The drawings, as markup: they are built as trees, in which text stays text."""
    from markupsafe import Markup

    def over_time(title: str, rows: Rows, names: Mapping[str, str]) -> Markup | None:
        labels = [row["at"].strftime(_FORMATS[facts.unit]) for row in rows]
        return Markup(columns(title, labels, _series(rows, names))) if rows else None

    def ranked(title: str, rows: Rows, label: Sequence[str], names: Mapping[str, str]) -> Any:
        labels = [" ".join(str(row[part]) for part in label if row[part]) for row in rows[:15]]
        return Markup(bars(title, labels, _series(rows[:15], names))) if rows else None

    # Outcomes without a colour of their own would all look alike.
    decisions = {"approved": "approve", "rejected": "reject"}
    spoken = [{**row, row["says"]: row["images"]} for row in facts.reasons]
    return {
        "over_time": over_time(f"Images by {facts.unit}", facts.over_time, _OUTCOMES),
        "reasons": ranked(
            "What rules said", spoken, ("rule",), {"review": "review", "block": "block"}
        ),
        "models": ranked("Images by model", facts.models, ("model",), _OUTCOMES),
        "briefs": ranked("Images by brief", facts.briefs, ("brief",), _OUTCOMES),
        "decisions": over_time(f"Decisions by {facts.unit}", facts.decisions, decisions),
        "scores": [
            Markup(
                distribution(
                    f"{each.score}, {each.images:,} images",
                    each.counts,
                    each.lowest,
                    each.highest,
                    each.markers,
                )
            )
            for each in facts.distributions
        ],
    }


def _series(rows: Rows, names: Mapping[str, str]) -> dict[str, list[float]]:
    return {name: [row.get(column) or 0 for row in rows] for column, name in names.items()}


def _pictures(settings: Settings, rows: Rows) -> Iterable[dict[str, Any]]:
    """Each image's row with a small JPEG as a data URI; None where the file is gone or too much."""
    from PIL import Image

    from pipeline.contact_sheet import jpeg, thumbnail

    used = 0
    for row in rows:
        data = None
        try:
            pixels = decode_limited(path_of(settings, row["url"]))
            small = jpeg(Image.fromarray(thumbnail(pixels, _PICTURE_SIDE)), quality=80)
            used += len(small)
            data = base64.b64encode(small).decode() if used <= _PICTURE_BYTES else None
        # Files go: a disk is moved, a folder is cleared. The report is about rows.
        except (OSError, ImageRefused, KeyError, ValueError):
            pass
        yield {**row, "data": data}


def _when(value: datetime | date | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return value.isoformat()
