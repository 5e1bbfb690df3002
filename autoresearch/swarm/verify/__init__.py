"""The verifier: measures what was contributed, by the ordinary search, and writes down what came of it."""
