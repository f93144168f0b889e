"""What clients can ask of a model: one row of a table for each kind of request, and a module for each family."""
