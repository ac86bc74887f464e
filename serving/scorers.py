"""Which class answers for which task; each is imported when its first artifact is loaded."""

from collections.abc import Callable, Mapping

from serving.artifact import Artifact, Scorer

Loader = Callable[[Artifact], Scorer]


def _recommend(artifact: Artifact) -> Scorer:
    from serving.recommend import Recommender

    return Recommender.load(artifact)


def _propensity(artifact: Artifact) -> Scorer:
    from serving.propensity import PropensityScorer

    return PropensityScorer.load(artifact)


def _demand(artifact: Artifact) -> Scorer:
    from serving.demand import Forecaster

    return Forecaster.load(artifact)


LOADERS: Mapping[str, Loader] = {"recommend": _recommend, "propensity": _propensity, "demand": _demand}
