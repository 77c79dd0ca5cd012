"""SNS: sending batches, topics, credentials, and the local stand-in. The only place that knows aiobotocore."""
