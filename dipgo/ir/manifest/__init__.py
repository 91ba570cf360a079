"""`plan.json` and `engines.json` as typed records."""
