"""What follows a search: the final claim on sealed data, and the audit of what was kept."""
