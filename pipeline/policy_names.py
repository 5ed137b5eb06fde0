"""Files of names that a policy denies: `prompts.deny_lists` read into `prompts.deny`.

A part of pipeline/policy.py. The names themselves stand in the effective policy, so that its digest
covers them and a catalogued policy needs no file.
"""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.denied import read_names
from pipeline.errors import Fault
from pipeline.yaml_lines import Located

FOLDER = "names"
"""Where lists lie: in this folder beside the policy, or beside the shipped ones."""


def with_names(tree: Located, folder: Path, shipped: Path) -> tuple[Located, list[Fault]]:
    """The tree with the names of its lists in `prompts.deny`, each at the line of its list."""
    prompts = tree.value.get("prompts")
    if prompts is None or not isinstance(prompts.value, dict) or "deny_lists" not in prompts.value:
        return tree, []
    lists = prompts.value["deny_lists"]
    if not isinstance(lists.value, list):
        return tree, []
    faults: list[Fault] = []
    names: list[Located] = []
    for item in lists.value:
        file, fault = _file(item, (folder, shipped))
        if file is None:
            faults += [fault] if fault else []
            continue
        found, more = read_names(file)
        faults += more
        names += [Located(name, file, line) for name, line in found]
    own = prompts.value.get("deny")
    written = list(own.value) if own is not None and isinstance(own.value, list) else []
    known = {each.value for each in written if isinstance(each.value, str)}
    denied = [*written, *(name for name in names if name.value not in known)]
    place = own or lists
    deny = Located(denied, place.file, place.line)
    if own is not None and not isinstance(own.value, list):
        deny = own
    merged = Located({**prompts.value, "deny": deny}, prompts.file, prompts.line)
    return Located({**tree.value, "prompts": merged}, tree.file, tree.line), faults


def _file(item: Located, folders: tuple[Path, ...]) -> tuple[Path | None, Fault | None]:
    name = item.value
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        remedy = "write the name of a file NAME.txt in the folder names, without a path"
        return None, Fault(f"prompts.deny_lists: {name!r} is no list name", item.where, remedy)
    for folder in folders:
        file = folder / FOLDER / f"{name}.txt"
        if file.is_file():
            if file.resolve().parent == file.parent.resolve():
                return file, None
            what = f"prompts.deny_lists: {name!r} is a link that leads out of its folder"
            return None, Fault(what, item.where, "put the file itself there")
    known = sorted({f.stem for folder in folders for f in (folder / FOLDER).glob("*.txt")})
    remedy = f"there are: {', '.join(known) or 'none'}; or put {name}.txt into {FOLDER}/"
    return None, Fault(f"prompts.deny_lists: there is no list {name!r}", item.where, remedy)
