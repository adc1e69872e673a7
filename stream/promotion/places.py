"""Where the version of a promotion may be found, the best place first."""

from model.errors import ModelError
from model.version.registry import ModelVersion, Registry
from stream.promotion.record import Promotion


def places(promotion: Promotion, registry: Registry) -> list[ModelVersion]:
    """The version in one's own registry, then where the promoter found it. Both with the SHA-256 that was promoted, so
    that another version of the same name is never taken for it.
    """
    name, _, number = promotion.version.partition("@")
    found = [ModelVersion(name, int(number), promotion.uri, promotion.sha256)]
    try:
        own = registry.resolve(f"{promotion.version}#{promotion.sha256}")
    except ModelError:
        return found
    return [own, *(each for each in found if each.uri != own.uri)]
