"""Export of a pack from a workspace: terms found, files located and verified, the pack recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import yaml
from pydantic import ValidationError

from catalog.lake import Lake, reading, writing
from catalog.pack import Pack, export_pack
from catalog.selection import EVERYTHING
from pipeline.brief_table import yaml_fault
from pipeline.errors import Fault, InputError
from pipeline.keys import trust_anchors
from pipeline.settings import Settings
from pipeline.store import path_of
from pipeline.terms import UsageTerms
from pipeline.verify import verify_file


def export(
    settings: Settings,
    out: Path,
    where: str = EVERYTHING,
    terms: str | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Pack:
    """Write the pack `out` from the images that `where` names, under `terms`.

    `terms` is a YAML file or the id of catalogued terms; without it the images' own, if they all
    have the same. Raises as export_pack does, and InputError for unusable terms.
    """
    with reading(settings.catalog) as lake:
        if terms is not None and _is_file(terms):
            granted = _read_terms(Path(terms))
        else:
            granted = _catalogued_terms(lake, terms)
    anchors = trust_anchors(settings)
    with writing(settings.catalog) as lake:
        return export_pack(
            lake,
            out,
            granted,
            verify=lambda path: verify_file(path, anchors),
            locate=lambda url: path_of(settings, url),
            where=where,
            progress=progress,
        )


def _is_file(terms: str) -> bool:
    return Path(terms).suffix in (".yaml", ".yml") or Path(terms).is_file()


def _read_terms(path: Path) -> UsageTerms:
    try:
        return UsageTerms.model_validate(yaml.safe_load(path.read_text("utf-8-sig")))
    except OSError as error:
        faults = [Fault(error.strerror or str(error), str(path), "check the path")]
    except UnicodeDecodeError:
        faults = [Fault("not UTF-8", str(path), "save as UTF-8")]
    except yaml.YAMLError as error:
        faults = [yaml_fault(path.name, error)]
    except ValidationError as error:
        faults = [
            Fault(
                each["msg"], f"{path.name}, {'.'.join(map(str, each['loc']))}", "see docs/packs.md"
            )
            for each in error.errors()
        ]
    raise InputError("terms", faults)


def _catalogued_terms(lake: Lake, terms_id: str | None) -> UsageTerms:
    rows = lake.rows(
        "SELECT DISTINCT terms_id, terms::VARCHAR AS terms FROM images "
        "WHERE cleared AND terms IS NOT NULL AND ($id IS NULL OR terms_id = $id) ORDER BY terms_id",
        {"id": terms_id},
    )
    if len(rows) == 1:
        return UsageTerms.model_validate(json.loads(rows[0]["terms"]))
    if not rows:
        what = f"no cleared image has terms {terms_id!r}" if terms_id else "no image is cleared yet"
        remedy = "name a YAML file with usage terms, or see `platemark audit`"
    else:
        what = f"the images have different terms: {', '.join(row['terms_id'] for row in rows)}"
        remedy = "name one of them, or a YAML file, with --terms"
    raise InputError("export", [Fault(what, "--terms", remedy)])
