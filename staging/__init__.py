"""The CAD AI Platform in small: what Lifeboat's drills break and recover."""
