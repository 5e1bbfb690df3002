"""Contract tests that every implementation of a seam passes; import the class into a test of your own."""
