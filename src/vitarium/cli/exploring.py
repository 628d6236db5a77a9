"""`vitarium explore`: a zoo in the browser."""

from typing import Annotated

from vitarium.cli._options import ZooFolder, option
from vitarium.core.terminal import print_line


def explore(
    directory: ZooFolder,
    host: Annotated[
        str,
        option(
            "Address to listen on. Others than this machine need the token in the page's address.",
            metavar="ADDRESS",
        ),
    ] = "127.0.0.1",
    port: Annotated[int, option("Port to listen on; 0: one that is free.", min=0, max=65535)] = 0,
    open_: Annotated[bool, option("--open", "Open the page in the browser.")] = False,
) -> None:
    """Look at a zoo in the browser: table, map, factors, lineage, models side by side.

    The page is served by this machine alone, until Ctrl-C, and loads nothing from elsewhere. It
    changes nothing but tags and notes.

    Examples:

      vitarium explore demo-zoo --open

      vitarium explore demo-zoo --host 0.0.0.0 --port 8000
    """
    from vitarium.core.extras import require

    require("explore", "vitarium explore")
    from vitarium.explorer.serve import serve

    def announce(address: str) -> None:
        print_line(f"{directory} is shown at {address} (Ctrl-C ends it)")

    serve(directory, host=host, port=port, listener=announce, open_browser=open_)
