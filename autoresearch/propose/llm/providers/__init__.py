"""The providers of language models: what each sends and reads, the network, and its failures."""
