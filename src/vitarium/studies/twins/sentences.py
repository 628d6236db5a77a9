"""What the study of twins found, in sentences."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from vitarium.studies.report.texts import Texts
from vitarium.studies.statistics.bootstrap import Bootstrap
from vitarium.studies.twins.comparison import Family, Member, by_method
from vitarium.studies.twins.lost_images import lost_by_most
from vitarium.studies.twins.recovery import Recovery
from vitarium.studies.twins.soups import TwinSoup

texts = Texts("twins", "sentences")
_MOST_METHODS = 12


def sentences(
    families: Sequence[Family],
    recovered: Mapping[str, Recovery],
    soups: Sequence[TwinSoup],
    bootstrap: Bootstrap,
) -> list[str]:
    """The findings, those about methods first."""
    lines = [*_methods(families, bootstrap), *_lost(families), *_recovered(recovered)]
    return [*lines, *_soups(soups)]


def _methods(families: Sequence[Family], bootstrap: Bootstrap) -> Iterator[str]:
    pairs_by_method = by_method(families)
    level = bootstrap.confidence_level
    for method, pairs in list(pairs_by_method.items())[:_MOST_METHODS]:
        if len(pairs) > 1:
            changes = [family.change(twin, level).value for family, twin in pairs]
            estimate = bootstrap.mean(np.array(changes), (-1, 1))
        else:
            ((family, twin),) = pairs
            estimate = family.change(twin, level)
        values = {"method": method, "originals": len(pairs), "change": estimate}
        speed = [twin.speedup.median for _, twin in pairs if twin.speedup]
        flops = _mean_share(pairs, "flops")
        about = {
            "flops": texts("unknown") if math.isnan(flops) else texts("flops", share=flops),
            "nbytes": texts("bytes", share=_mean_share(pairs, "bytes")),
            "speed": texts("speed", times=float(np.median(speed))) if speed else texts("untimed"),
        }
        yield texts("method", **values, **about)
    if (rest := len(pairs_by_method) - _MOST_METHODS) > 0:
        yield texts("more_methods", rest=rest)


def _mean_share(pairs: Sequence[tuple[Family, Member]], cost: str) -> float:
    shares = [family.shares(cost).get(twin.ref) for family, twin in pairs]
    known = [share for share in shares if share is not None]
    return float(np.mean(known)) if known else math.nan


def _lost(families: Sequence[Family]) -> Iterator[str]:
    several = [family for family in families if len(family.comparable) > 1]
    shares = [share for family in several if (share := lost_by_most(family)) is not None]
    if shares:
        yield texts("lost", share=float(np.mean(shares)), families=len(shares))


def _recovered(recovered: Mapping[str, Recovery]) -> Iterator[str]:
    verdicts = Counter(recovery.verdict for recovery in recovered.values())
    if compared := verdicts.total() - verdicts["not compared"]:
        correct = verdicts["parent"] + verdicts["tied"]
        yield texts("recovered", right=correct, compared=compared, tied=verdicts["tied"])
    if verdicts["not compared"]:
        yield texts("not_compared", count=verdicts["not compared"])


def _soups(soups: Sequence[TwinSoup]) -> Iterator[str]:
    averaged = [group for group in soups if group.soup is not None]
    gains = []
    for group in averaged:
        assert group.soup is not None
        gains.append(float(group.soup.correct.double().mean()) - group.mean)
    if gains:
        better = sum(gain >= 0 for gain in gains)
        values = {"better": better, "groups": len(gains), "gain": float(np.median(gains))}
        yield texts("soups", **values)
    if refused := len(soups) - len(averaged):
        yield texts("soups_refused", count=refused)
    if not soups:
        yield texts("no_soups")
