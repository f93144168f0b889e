"""What requests used: tokens, prices, the journal of usage records, metrics."""
