"""The plan's Recovery Verification Checklist: one module for each of its sections.

Each check gives its evidence, or raises: Failed for what is broken, Unknown for what could not be
looked at. What a tool raises counts too (see `tasks.verification`).
"""
