"""Prefect flows: one file a flow, orchestration only."""
