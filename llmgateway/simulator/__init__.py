"""A stand-in for Azure OpenAI that needs no subscription."""
