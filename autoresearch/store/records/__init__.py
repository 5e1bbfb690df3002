"""What the journal keeps as notes, typed: settings, briefs, samples, claims, transfers."""
