"""The way to Azure: its address, its connections, its answers."""
