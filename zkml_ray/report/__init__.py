"""What a run looks like to people: one page, a trace, short summaries. Nothing here is proved."""
