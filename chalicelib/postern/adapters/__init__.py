"""One thing outside each; the only wing that imports botocore and psycopg2."""
