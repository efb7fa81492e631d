"""One thing outside each; the only wing that imports boto3 and psycopg2."""
