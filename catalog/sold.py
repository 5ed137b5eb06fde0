"""What earlier packs gave to somebody else: an exclusive item is sold once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from pydantic import ValidationError

from catalog.ingredients import Row, select_wanted
from pipeline.errors import Fault, InputError
from pipeline.scope import ANY, WORLDWIDE, both_run, overlap
from pipeline.terms import Conflict, UsageTerms

if TYPE_CHECKING:
    import duckdb


def sold_reasons(
    connection: duckdb.DuckDBPyConnection, rows: Sequence[Row], pack: UsageTerms, today: date
) -> dict[str, list[Conflict]]:
    """By request id, earlier packs for somebody else that stand in the way: one of the two is
    exclusive, and both reach the same time, territory and channel.

    Exclusive is a whole item: another image of the same client's sku counts as well. Nobody can be
    told from somebody else when a pack names no licensee: an exclusive one has to. Raises
    InputError when an earlier pack's terms cannot be read.
    """
    if pack.exclusive and pack.licensee == ANY:
        return {row["request_id"]: [_TO_NOBODY] for row in rows}
    rivals = _rivals(connection, pack, today)
    if not rivals or not rows:
        return {}
    given = select_wanted(
        connection,
        "SELECT DISTINCT a.pack_id, a.request_id, r.sku, r.client "
        "FROM (SELECT * FROM pack_assets SEMI JOIN wanted USING (pack_id)) AS a "
        "JOIN requests AS r USING (request_id)",
        pack_id=list(rivals),
    )
    by_item: dict[tuple[str, str | None], list[Row]] = {}
    for each in given:
        by_item.setdefault((each["sku"], each["client"]), []).append(each)
    found: dict[str, list[Conflict]] = {}
    for row in rows:
        sold = by_item.get((row["sku"], row["client"]), ())
        packs = {each["pack_id"]: False for each in sold}
        packs |= {each["pack_id"]: True for each in sold if each["request_id"] == row["request_id"]}
        told = [
            rival.conflict(pack, same=packs[pack_id], sku=row["sku"])
            for pack_id, rival in rivals.items()
            if pack_id in packs
        ]
        if told:
            found[row["request_id"]] = told
    return found


_TO_NOBODY = Conflict(
    "terms.exclusive",
    "the pack is exclusive and does not say to whom",
    "write its licensee, or exclusive: false",
)


@dataclass(frozen=True)
class _Rival:
    """An earlier pack for somebody else, and what it has in common with the new one."""

    pack_id: str
    terms: UsageTerms
    where: tuple[str, ...]

    def conflict(self, pack: UsageTerms, same: bool, sku: str) -> Conflict:
        gave = "gave it" if same else f"gave another image of {sku}"
        until = self.terms.expires or "no end"
        whose = "the earlier" if self.terms.exclusive else "the new"
        if self.terms.exclusive and pack.exclusive:
            whose = "either"
        return Conflict(
            "terms.sold",
            f"pack {self.pack_id} {gave} to {self.terms.licensee} until {until}, and one of the "
            f"two is exclusive ({whose} one): both reach {'; '.join(self.where)}",
            f"leave {sku} out, wait until that pack is over, or give it where they do not meet",
        )


def _rivals(
    connection: duckdb.DuckDBPyConnection, pack: UsageTerms, today: date
) -> dict[str, _Rival]:
    """Earlier packs that may stand in the way, oldest first."""
    earlier = connection.execute(
        "SELECT pack_id, any_value(terms) AS terms, min(created_at) AS since FROM packs "
        # What was taken back is given to nobody.
        "ANTI JOIN (SELECT pack_id FROM revocations WHERE kind = 'pack') USING (pack_id) "
        "WHERE (licensee <> $licensee OR licensee = $any) "
        "AND (expires IS NULL OR expires >= $today) "
        "GROUP BY pack_id ORDER BY since, pack_id",
        {"licensee": pack.licensee, "any": ANY, "today": today},
    ).fetchall()
    found: dict[str, _Rival] = {}
    for pack_id, text, since in earlier:
        terms = _read(pack_id, text)
        if not (pack.exclusive or terms.exclusive):
            continue
        common = [
            overlap(pack.territories, terms.territories, WORLDWIDE),
            overlap(pack.channels, terms.channels, ANY),
            overlap(pack.media, terms.media, ANY),
        ]
        starts = terms.starts or since.date()
        if all(common) and both_run(pack.starts or today, pack.expires, starts, terms.expires):
            found[pack_id] = _Rival(pack_id, terms, tuple(map(_few, common)))
    return found


def _read(pack_id: str, text: str) -> UsageTerms:
    try:
        return UsageTerms.model_validate(json.loads(text))
    except ValidationError as error:
        what = f"the terms of the earlier pack {pack_id} cannot be read: {error.errors()[0]['msg']}"
        remedy = "update Platemark, if a newer version wrote them, or revoke that pack"
        raise InputError("export", [Fault(what, "", remedy)]) from None


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
