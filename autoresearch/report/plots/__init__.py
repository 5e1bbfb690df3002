"""The pictures: of the progress of a search, of where its time went, and of which knobs matter."""
