"""The write-ahead log: received, looked after, shipped to S3, found whole there, and replayed."""
