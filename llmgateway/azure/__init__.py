"""The client for Azure: its URL, its connections, its answers."""
