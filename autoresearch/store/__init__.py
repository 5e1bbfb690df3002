"""What must never be lost: the journal, git, the lock of a search, and people's messages to it."""
