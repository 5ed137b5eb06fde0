"""What speaks against images beside their scores: licences of models, denied words in prompts.

A part of catalog/replay_evaluate.py. Few values are looked at, not many images: models are counted
in dozens, and a prompt is read once however many images it made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from catalog.replay_judged import REQUESTS, any_row, keep
from catalog.replay_sql import quoted
from catalog.rows import text_table
from pipeline.denied import denied_in
from pipeline.policy_model import Policy
from pipeline.request import Request, request_from_json
from pipeline.verdict import prompt_refusals

if TYPE_CHECKING:
    import duckdb

_CHUNK = 100_000


def unlicensed(connection: duckdb.DuckDBPyConnection, policy: Policy) -> str:
    """A condition on images: a model, adapter or tool has a licence that the policy does not list.

    One that the catalog has no licence of counts as such. Leaves the tables `allowed_models` and
    `unlicensed` in the connection.
    """
    _keep_allowed(connection, policy)
    conditions = []
    refused = connection.execute(
        "SELECT * FROM (SELECT DISTINCT model, model_revision AS revision FROM raw.images) "
        "ANTI JOIN temp.allowed_models USING (model, revision)"
    ).fetchall()
    if refused:
        keys = ", ".join(f"({quoted(model)}, {quoted(revision)})" for model, revision in refused)
        conditions.append(f"(model, model_revision) IN ({keys})")
    # Only images with a recipe are hashed: most have none.
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE unlicensed AS SELECT DISTINCT request_id FROM "
        "raw.recipe_models SEMI JOIN (SELECT request_id, attempt "
        f"FROM {REQUESTS} WHERE recipe IS NOT NULL) USING (request_id, attempt) "
        "ANTI JOIN temp.allowed_models USING (model, revision)"
    )
    if any_row(connection, "temp.unlicensed"):
        conditions.append("request_id IN (SELECT request_id FROM temp.unlicensed)")
    return " OR ".join(conditions) or "false"


def _keep_allowed(connection: duckdb.DuckDBPyConnection, policy: Policy) -> None:
    rows = connection.execute("SELECT name, revision, coalesce(licence, '') FROM models").fetchall()
    allowed = [
        (name, revision) for name, revision, licence in rows if policy.allows_licence(licence)
    ]
    names, revisions = zip(*allowed, strict=True) if allowed else ((), ())
    keep(connection, "allowed_models", text_table(model=names, revision=revisions))


def denied(connection: duckdb.DuckDBPyConnection, policy: Policy) -> str:
    """A condition on images: a prompt, also of the steps before, holds a denied word.

    May leave the tables `denied_prompts` and `denied_images` in the connection.
    """
    if not policy.prompts.deny:
        return "false"
    plain = (
        "(recipe IS NULL OR ((recipe -> '$.earlier') IS NULL "
        "AND coalesce(recipe ->> '$.prompt_syntax', 'plain') = 'plain'))"
    )
    conditions = []
    result = connection.execute(f"SELECT DISTINCT prompt FROM {REQUESTS} WHERE {plain}")
    prompts: list[str] = []
    while rows := result.fetchmany(_CHUNK):
        prompts += denied_in(policy.prompts.deny, [prompt for (prompt,) in rows])
    if prompts:
        keep(connection, "denied_prompts", text_table(prompt=prompts))
        conditions.append(f"({plain} AND prompt IN (SELECT prompt FROM temp.denied_prompts))")
    chained = connection.execute(
        f"SELECT {REQUEST_COLUMNS} FROM {REQUESTS} WHERE recipe IS NOT NULL AND NOT {plain}"
    ).to_arrow_reader(_CHUNK)
    held = [
        row["request_id"]
        for batch in chained
        for row in batch.to_pylist()
        if prompt_refusals(policy, request_of_row(row))
    ]
    if held:
        keep(connection, "denied_images", text_table(request_id=held))
        conditions.append("request_id IN (SELECT request_id FROM temp.denied_images)")
    return " OR ".join(conditions) or "false"


REQUEST_COLUMNS = (
    'request_id, attempt, sku, "index", campaign, client, mode, model, model_revision, prompt, '
    "negative_prompt, seed, width, height, steps, guidance, scheduler, terms, recipe"
)
"""Of raw.images, what a request is made of."""


def request_of_row(row: Mapping[str, Any]) -> Request:
    """A request from its row of raw.images, JSON columns as text."""
    terms, recipe = (json.loads(row[name]) if row[name] else {} for name in ("terms", "recipe"))
    return request_from_json({**row, "terms": terms, **recipe})
