"""The CAD AI Platform's application code."""
