"""The report: one HTML file of a job's rows that opens from disk and needs no network."""
