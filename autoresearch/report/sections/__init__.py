"""Parts of the page that answer one question each."""
