"""What the server answers, a file per part of the page."""
