"""Steps: each decides (core), acts (tools) and records. Flows put them in order."""
