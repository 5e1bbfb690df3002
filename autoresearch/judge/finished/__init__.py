"""What is said of the changes of a search once they are kept: the claim, the audit, and what carries over."""
