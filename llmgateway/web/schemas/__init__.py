"""The bodies of requests and answers, checked and documented."""
