"""What a person sees: one summary; from it the page, the plots and the terminal views."""
