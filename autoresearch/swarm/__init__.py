"""Research with strangers: they contribute changes, a server measures them afresh, anyone can check it."""
