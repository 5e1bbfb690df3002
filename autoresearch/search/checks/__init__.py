"""Checks of proposals and of kept changes: admission, unseen text, an old seed again, taking back."""
