"""A task whose editable file is a brief: each trial is a whole search that follows it."""
