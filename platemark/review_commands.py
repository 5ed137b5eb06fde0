"""review list, approve, reject: a person's decision on what a policy held back."""

from __future__ import annotations

import getpass
from typing import Annotated, Any

import typer

from pipeline.settings import load_settings
from platemark.display import out, print_json, print_rows
from platemark.options import AsJson, Workspace

review = typer.Typer(help="Decide on images that wait for a person.", no_args_is_help=True)

Asset = Annotated[
    str, typer.Argument(help="SKU, file, or 6 or more digits of its SHA-256 or request id.")
]
Why = Annotated[str, typer.Option("--reason", help="Why; it is kept with the decision.")]
Reviewer = Annotated[
    str | None, typer.Option("--reviewer", help="Who decides; default: the login name.")
]


def register(app: typer.Typer) -> None:
    """Add the group to the app."""
    app.add_typer(review, name="review", rich_help_panel="Audit")


@review.command("list")
def list_waiting(workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Images that wait for a person, the most urgent first, with the reasons.

    Approvals that have expired wait again.
    """
    from catalog.lake import reading
    from catalog.review import review_queue

    settings = load_settings(workspace)
    with reading(settings.catalog) as lake:
        queue = review_queue(lake)
    if as_json:
        print_json(queue)
        return
    print_rows(
        {
            "request": row["request_id"][:12],
            "sku": f"{row['sku']}-{row['index']}",
            "prompt": row["prompt"],
            "severity": row["severity"],
            "why": "; ".join([*_expired(row), *(reason["text"] for reason in row["reasons"])]),
            "file": str(settings.root / row["url"]) if row["url"] else "not kept",
        }
        for row in queue
    )


def _expired(row: dict[str, Any]) -> list[str]:
    until = row["approved_until"]
    return [f"approved by {row['reviewer']} until {until:%Y-%m-%d}"] if until else []


@review.command()
def approve(
    asset: Asset,
    reason: Why,
    reviewer: Reviewer = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Approve an image in review: it is labelled and signed, with your name and reason kept.

    The policy may name the roles that approve; settings say who has which (`reviewers`).
    """
    from catalog import release

    decision = release.approve(
        load_settings(workspace), asset, reviewer or getpass.getuser(), reason
    )
    _say(decision, as_json)


@review.command()
def reject(
    asset: Asset,
    reason: Why,
    reviewer: Reviewer = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Reject an image in review: it is never signed; file, scores and your reason are kept."""
    from catalog import release

    decision = release.reject(
        load_settings(workspace), asset, reviewer or getpass.getuser(), reason
    )
    _say(decision, as_json)


def _say(decision: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(decision)
        return
    done = "approved and signed" if decision["decision"] == "approve" else "rejected"
    until = f" until {decision['expires']:%Y-%m-%d}" if decision["expires"] else ""
    out.print(f"{decision['sku']}-{decision['index']}: {done} by {decision['reviewer']}{until}")
    if decision.get("file"):
        out.print(decision["file"])
