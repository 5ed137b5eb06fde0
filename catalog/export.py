"""Export of a pack from a workspace: terms found, files located and verified, the pack recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from catalog.pack import NothingToExport, Pack, export_pack
from catalog.selection import EVERYTHING, own_terms, without_terms
from pipeline.brief_table import decode_text, load_yaml
from pipeline.errors import Fault, InputError
from pipeline.keys import trust_anchors
from pipeline.settings import Settings
from pipeline.store import MIMES, path_of
from pipeline.terms import UsageTerms
from pipeline.verify import verify_signature


def export(
    settings: Settings,
    out: Path,
    where: str = EVERYTHING,
    terms: str | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Pack:
    """Write the pack `out` from the images that `where` names, under `terms`.

    `terms` is a YAML file or the id of terms that some of these images have; without it the
    images' own, if all that are cleared have the same. Raises as export_pack does, and InputError
    for unusable terms.
    """
    if terms is not None and _is_file(terms):
        granted = _read_terms(Path(terms))
    else:
        granted = _catalogued_terms(settings.catalog, where, terms)
    anchors = trust_anchors(settings)
    return export_pack(
        settings.catalog,
        out,
        granted,
        verify=lambda path: verify_signature(path, MIMES[path.suffix], anchors),
        locate=lambda url: path_of(settings, url),
        where=where,
        progress=progress,
    )


def _is_file(terms: str) -> bool:
    return Path(terms).suffix in (".yaml", ".yml") or Path(terms).is_file()


def _read_terms(path: Path) -> UsageTerms:
    faults: list[Fault] = []
    try:
        text = decode_text(path.name, path.read_bytes(), faults)
        content = load_yaml(path.name, text, faults) if text is not None else None
        if not faults:
            return UsageTerms.model_validate(content)
    except OSError as error:
        faults.append(Fault(error.strerror or str(error), str(path), "check the path"))
    except ValidationError as error:
        for each in error.errors():
            place = ", ".join((path.name, ".".join(map(str, each["loc"]))))
            faults.append(Fault(each["msg"], place, "see docs/packs.md"))
    raise InputError("terms", faults)


def _catalogued_terms(folder: Path, where: str, terms_id: str | None) -> UsageTerms:
    found = [each for each in own_terms(folder, where) if terms_id in (None, each.id)]
    if len(found) == 1:
        return found[0]
    if not found and terms_id is None:
        raise NothingToExport(without_terms(folder, where))
    ids = list(dict.fromkeys(each.id for each in found))
    remedy = "name a YAML file of usage terms: --terms FILE"
    if not found:
        what = f"no cleared image that the condition names has terms {terms_id!r}"
    elif len(ids) > 1:
        what = f"the images have different terms: {', '.join(ids)}"
        remedy = "name one of them, or a YAML file, with --terms"
    else:
        what = f"terms {ids[0]} differ from image to image: {'; '.join(_differences(found))}"
    raise InputError("export", [Fault(what, "--terms", remedy)])


def _differences(terms: Sequence[UsageTerms]) -> list[str]:
    """Each field that is not the same in all, with its values."""
    fields = [each.model_dump(mode="json") for each in terms]
    values = {name: list(dict.fromkeys(str(each[name]) for each in fields)) for name in fields[0]}
    return [f"{name} {' or '.join(found)}" for name, found in values.items() if len(found) > 1]
