"""The model in service: loading, request schema, output, batching and swaps."""
