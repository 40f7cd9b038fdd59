"""Memo, a transformer that remembers summaries: `memo` is where to begin."""
