"""How a zoo grows at this moment."""

from fastapi import APIRouter

from vitarium.explorer.served_zoo import Served
from vitarium.page.answers.live import Live

router = APIRouter(prefix="/api", tags=["live"])


@router.get("/live.json")
def live(served: Served) -> Live:
    """How far the zoo is that `vitarium grow` grows, in whichever process, or how it ended."""
    return served.growth.live()
