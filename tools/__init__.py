"""Development tools: generated pages and screenshots."""
