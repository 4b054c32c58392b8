"""Commands that read files of rows: outcomes and predictions of the past are published, new rows are scored."""
