"""Scheduled ingest: at set times, what is new in an archive becomes rows."""
