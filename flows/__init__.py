"""The procedures of the disaster recovery plan, one file each."""
