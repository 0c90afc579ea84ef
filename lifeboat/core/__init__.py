"""Pure decisions and models: no clock, no environment, no process, no network."""
