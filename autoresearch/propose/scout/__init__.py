"""Reads papers and repositories for ideas, which enter the queue as proposals to be taken up."""
