"""What happens to one request between the client and Azure."""
