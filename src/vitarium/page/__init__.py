"""The page over a zoo: its files, built from `web/`, and what it is told, as plain values.

`vitarium explore` answers with these while the page is open, and the exporter `site` writes them as
files for any web server.
"""

from pathlib import Path

BUILT = Path(__file__).parent / "built"
"""The page's files, which `make web` builds."""
