"""A contributor's side: joins a track and submits what is kept."""
