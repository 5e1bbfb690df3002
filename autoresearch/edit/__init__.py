"""Editing: exact edits, named knobs, and the rules every candidate must meet."""
