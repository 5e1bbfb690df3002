"""Landlock and seccomp by raw system calls (being written)."""
