"""Some questions asked of PostgreSQL, for bench/audit.py: one wide, indexed table of images.

The table holds what the view `images` shows, so that nothing need be joined or compared at asking
time, which favours PostgreSQL: a catalog there would have to keep it up to date with each commit.
Columns that such a table would not have are left out, and times include starting `psql`.
The server is one of its own in a temporary folder; `postgres` and `psql` must be on the PATH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from catalog.audit import Limits, Value, isolated

SETTINGS = (
    "shared_buffers=4GB", "effective_cache_size=12GB", "work_mem=256MB",
    "maintenance_work_mem=1GB", "max_wal_size=8GB", "max_parallel_workers_per_gather=1",
    "random_page_cost=1.1", "fsync=off", "listen_addresses=", "jit=off",
)  # fmt: skip
"""Two processes work on a question, as two threads do in DuckDB."""
_COLUMNS = (
    'request_id, sku, "index", campaign, client, mode, model, model_revision, model_licence, '
    "prompt, seed, terms_id, expires, state, error, run_id, recorded_at, generate_ms, outcome, "
    "policy, policy_version, policy_digest, reasons, decision, reviewer, approval_holds, sha256, "
    "asset_state, url, c2pa_label, cleared"
)
_SCHEMA = """
CREATE UNLOGGED TABLE images (
    request_id text, sku text, index bigint, campaign text, client text, mode text, model text,
    model_revision text, model_licence text, prompt text, seed bigint, terms_id text, expires date,
    state text, error text, run_id text, recorded_at timestamptz, generate_ms double precision,
    outcome text, policy text, policy_version text, policy_digest text, reasons jsonb,
    decision text, reviewer text, approval_holds boolean, sha256 text, asset_state text, url text,
    c2pa_label text, cleared boolean);
CREATE UNLOGGED TABLE pack_assets (pack_id text, request_id text, asset_sha256 text, file text);
"""
_INDEXES = """
CREATE INDEX ON images (request_id);
CREATE INDEX ON images (sku, index);
CREATE INDEX ON images (recorded_at DESC, sku, index);
CREATE INDEX ON images (campaign, recorded_at);
CREATE INDEX ON images (model, recorded_at DESC);
CREATE INDEX ON images (expires, sku, index) WHERE cleared;
CREATE INDEX ON images (recorded_at DESC, sku, index) WHERE outcome <> 'pass';
CREATE INDEX ON images (recorded_at, sku, index) WHERE outcome = 'review';
CREATE INDEX ON images (recorded_at DESC, sku, index) WHERE state = 'failed';
CREATE INDEX ON images (client, campaign) INCLUDE (outcome, decision, state, cleared);
CREATE INDEX ON pack_assets (request_id);
CREATE INDEX ON pack_assets (pack_id);
VACUUM ANALYZE;
"""
_YIELD = """count(*), count(*) FILTER (WHERE state = 'failed'),
    count(*) FILTER (WHERE outcome = 'pass'), count(*) FILTER (WHERE outcome = 'review'),
    count(*) FILTER (WHERE outcome = 'block'), sum(generate_ms) / 1000"""
QUESTIONS = {
    "assets-of-sku": """
        SELECT i.*, p.packs FROM images AS i LEFT JOIN LATERAL (
            SELECT array_agg(DISTINCT pack_id) AS packs FROM pack_assets AS p
            WHERE p.request_id = i.request_id) AS p ON true
        WHERE sku = {sku} ORDER BY index, recorded_at""",
    "expiring": """
        SELECT e.*, p.packs FROM (
            SELECT expires, sku, index, campaign, client, terms_id, sha256, request_id FROM images
            WHERE cleared AND expires <= current_date + {days}
            ORDER BY expires, sku, index LIMIT {limit}) AS e
        LEFT JOIN LATERAL (SELECT array_agg(DISTINCT pack_id) AS packs FROM pack_assets AS p
                           WHERE p.request_id = e.request_id) AS p ON true
        ORDER BY expires, sku, index""",
    "failures": """
        SELECT recorded_at, sku, index, campaign, error, model, run_id, request_id FROM images
        WHERE state = 'failed' AND recorded_at >= now() - {days} * interval '1 day'
        ORDER BY recorded_at DESC, sku, index LIMIT {limit}""",
    "made-with-model": """
        SELECT model, model_revision, model_licence, sku, index, campaign, client, state, outcome,
               asset_state, sha256, recorded_at, run_id, request_id
        FROM images WHERE strpos(lower(model), lower({model})) > 0
        ORDER BY recorded_at DESC, sku, index LIMIT {limit}""",
    "packs-contents": """
        SELECT a.*, i.sku, i.outcome, i.decision, i.terms_id, i.expires, i.sha256
        FROM pack_assets AS a JOIN images AS i USING (request_id)
        WHERE pack_id = {pack} ORDER BY file LIMIT {limit}""",
    "pass-rate-by-campaign": """
        SELECT client, campaign, count(*), count(*) FILTER (WHERE outcome = 'pass'),
               count(*) FILTER (WHERE outcome = 'review'),
               count(*) FILTER (WHERE outcome = 'review' AND decision = 'approve'),
               count(*) FILTER (WHERE outcome = 'block'),
               count(*) FILTER (WHERE state = 'failed'), count(*) FILTER (WHERE cleared)
        FROM images GROUP BY client, campaign ORDER BY client, campaign LIMIT {limit}""",
    "rejects-by-rule": """
        SELECT r ->> 'rule', r ->> 'outcome', policy, policy_version, count(*),
               min((r ->> 'score')::float), max((r ->> 'score')::float)
        FROM images, jsonb_array_elements(reasons) AS r
        WHERE outcome <> 'pass' GROUP BY 1, 2, 3, 4 ORDER BY 5 DESC LIMIT {limit}""",
    "review-queue": """
        SELECT recorded_at, sku, index, campaign, coalesce((
                   SELECT max(array_position(ARRAY['low', 'normal', 'high', 'critical'],
                                             r ->> 'severity'))
                   FROM jsonb_array_elements(reasons) AS r), 2) AS urgency,
               policy, policy_version, url, sha256, request_id
        FROM images WHERE outcome = 'review'
            AND (decision IS NULL OR (decision = 'approve' AND NOT approval_holds))
        ORDER BY urgency DESC, recorded_at, sku, index LIMIT {limit}""",
    "verdicts-by-policy-and-day": """
        SELECT recorded_at::date, policy, policy_version, policy_digest,
               count(*) FILTER (WHERE outcome = 'pass'),
               count(*) FILTER (WHERE outcome = 'review'),
               count(*) FILTER (WHERE outcome = 'block'), count(*)
        FROM images WHERE outcome IS NOT NULL GROUP BY 1, 2, 3, 4 ORDER BY 1 DESC LIMIT {limit}""",
    "why-not-passed": """
        SELECT h.*, r FROM (
            SELECT sku, index, campaign, outcome, decision, reasons, policy, policy_version,
                   request_id, sha256, recorded_at
            FROM images WHERE outcome <> 'pass'
            ORDER BY recorded_at DESC, sku, index LIMIT {limit}) AS h,
            jsonb_array_elements(reasons) AS r ORDER BY recorded_at DESC, sku, index""",
    "yield-by-model": f"""
        SELECT model, model_revision, {_YIELD}
        FROM images WHERE recorded_at >= now() - {{days}} * interval '1 day'
        GROUP BY 1, 2 ORDER BY 3 DESC LIMIT {{limit}}""",
    "yield-by-policy": f"""
        SELECT policy, policy_version, policy_digest, {_YIELD}
        FROM images WHERE recorded_at >= now() - {{days}} * interval '1 day'
        GROUP BY 1, 2, 3 ORDER BY 4 DESC LIMIT {{limit}}""",
}
"""The named questions as somebody with that table would write them."""


@dataclass(frozen=True)
class Postgres:
    """A running server with the images in it."""

    socket: str
    questions: Mapping[str, str]

    def seconds(self, name: str, values: Mapping[str, Value]) -> float:
        """How long the server takes for a question, answer included."""
        sql = self.questions[name].format(**{key: _literal(one) for key, one in values.items()})
        begun = time.perf_counter()
        _psql(self.socket, f"COPY ({sql}) TO STDOUT")
        return time.perf_counter() - begun


@contextmanager
def postgres_of(folder: Path, images: int) -> Iterator[Postgres | None]:
    """PostgreSQL with the first `images` of the catalog; None, and a line, where there is none."""
    missing = [name for name in ("initdb", "postgres", "psql") if not shutil.which(name)]
    if missing or not images:
        print(f"PostgreSQL is left out{': no ' + ', '.join(missing) if missing else ''}")
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="pg-") as temporary:
        root = Path(temporary)
        # PostgreSQL refuses to run as root.
        user = "nobody" if os.geteuid() == 0 else None
        if user:
            shutil.chown(root, user)
        data = root / "data"
        subprocess.run(
            ["initdb", "-D", data, "-U", "bench", "-A", "trust", "--no-sync"],
            check=True, stdout=subprocess.DEVNULL, user=user, cwd=root,
        )  # fmt: skip
        options = [part for setting in SETTINGS for part in ("-c", setting)]
        server = subprocess.Popen(
            ["postgres", "-D", data, "-k", root, *options],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=user, cwd=root,
        )  # fmt: skip
        try:
            _wait(str(root))
            begun = time.perf_counter()
            _psql(str(root), _SCHEMA)
            _load(folder, images, str(root))
            _psql(str(root), _INDEXES)
            size = _psql(str(root), "SELECT pg_database_size('postgres')")
            print(
                f"{images:,} images in PostgreSQL in {time.perf_counter() - begun:.0f} s, "
                f"{int(size) / 1e9:.1f} GB"
            )
            yield Postgres(str(root), QUESTIONS)
        finally:
            server.terminate()
            server.wait()


def _load(folder: Path, images: int, socket: str) -> None:
    """Fills the tables through pipes, as CSV."""
    limits = Limits(memory="4GB")
    with isolated(folder, limits) as lake:
        for table, sql in (
            ("images", f"SELECT {_COLUMNS} FROM images WHERE seed < {images}"),
            ("pack_assets", "SELECT * FROM pack_assets"),
        ):
            _copy(lake.execute(sql.replace("reasons,", "to_json(reasons),")), table, socket)


def _copy(result, table: str, socket: str) -> None:  # type: ignore[no-untyped-def]
    import pyarrow.csv as csv

    command = ["psql", "-h", socket, "-U", "bench", "-q", "-v", "ON_ERROR_STOP=1", "postgres", "-c",
               f"COPY {table} FROM STDIN (FORMAT csv)"]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin
        for batch in result.to_arrow_reader(50_000):
            csv.write_csv(batch, process.stdin, csv.WriteOptions(include_header=False))
        process.stdin.close()
        if process.wait():
            raise RuntimeError(f"PostgreSQL did not take the rows of {table}")


def _wait(socket: str) -> None:
    for _ in range(100):
        if not subprocess.run(["pg_isready", "-q", "-h", socket], check=False).returncode:
            return
        time.sleep(0.1)
    raise RuntimeError("PostgreSQL did not start")


def _psql(socket: str, sql: str) -> str:
    command = ["psql", "-h", socket, "-U", "bench", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1",
               "postgres"]  # fmt: skip
    done = subprocess.run(command, input=sql, capture_output=True, text=True, check=True)
    return done.stdout


def _literal(value: Value) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)
