"""Before a search: its plan and cost, whether this machine is fit for it, and a search ready to run."""
