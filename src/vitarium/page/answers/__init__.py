"""The shapes of what the page is told, as it gets them in JSON.

The server documents its answers with these (`api/openapi.json`), and tests hold both against them.
"""
