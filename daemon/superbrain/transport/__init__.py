"""Connected Unix sockets and what travels beside their bytes: what both ends of a lane stand on."""
