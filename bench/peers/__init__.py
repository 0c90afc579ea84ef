"""What people would use instead of Lifeboat, by the commands that they would type."""
