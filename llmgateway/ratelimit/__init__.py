"""What a key, its group and the organisation may still use."""
