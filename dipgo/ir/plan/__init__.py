"""The plan: an SSA program over all steps, printed, parsed, verified and counted."""
