"""The index of all that was made: a DuckLake that flows append to and auditors question."""
