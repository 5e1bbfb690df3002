"""One search: its loop, its scheduler, the proposals made ahead, recovery, and setup."""
