"""Reads class lists as spreadsheets and learning platforms write them: whatever separates, encodes and names them."""
