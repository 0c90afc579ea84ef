"""The second half of the plan: incidents, who is told, what comes after, what people must do."""
