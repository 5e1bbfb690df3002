"""The HTTP server of tracks, and what it shows."""
