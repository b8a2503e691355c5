"""Cases of joint methods that mergekit has too: parameters, weights of models, and whether there is a base model."""

from __future__ import annotations

from typing import Any

Case = dict[str, Any]

WEIGHTS = [1.0, 0.5, -0.3]
PAIR = [0.7, 0.4]


def case(
    method: str,
    models: int = 3,
    *,
    base: bool = True,
    dtype: str = "float32",
    factor: float | None = None,
    **parameters: Any,
) -> Case:
    """Return a case; a parameter whose value is a list has one value for each model. `factor` is `lambda`."""
    if factor is not None:
        parameters["lambda"] = factor
    return {"method": method, "models": models, "base": base, "dtype": dtype, "parameters": parameters}


CASES: list[Case] = [
    case("linear", base=False, weight=WEIGHTS),
    case("linear", base=False, weight=WEIGHTS, normalize=False),
    case("slerp", 1, t=0.3),
    case("nuslerp", 2, weight=PAIR),
    case("nuslerp", 2, base=False, weight=PAIR),
    case("nuslerp", 2, weight=PAIR, nuslerp_flatten=False),
    case("nuslerp", 2, base=False, weight=PAIR, nuslerp_flatten=False, nuslerp_row_wise=True),
    case("multislerp", weight=[1.0, 0.5, 0.3]),
    case("multislerp", base=False, weight=[1.0, 0.5, 0.3], normalize_weights=False),
    case("karcher", base=False),
    case("karcher", base=False, dtype="float64", max_iter=3, tol=1e-9),
    case("task_arithmetic", weight=WEIGHTS),
    case("task_arithmetic", weight=WEIGHTS, normalize=True, factor=0.7),
    case("ties", weight=WEIGHTS, density=[0.5, 0.3, 0.8]),
    case("ties", weight=WEIGHTS, density=[0.5, 0.3, 0.8], normalize=False, rescale=True, factor=1.3),
    case("dare_linear", weight=WEIGHTS),
    case("dare_ties", weight=WEIGHTS, normalize=True),
    case("della", weight=WEIGHTS),
    case("della_linear", weight=WEIGHTS),
    case("della", weight=WEIGHTS, density=[0.0, 1.0, 1.0], epsilon=0.0),
    case("breadcrumbs", weight=WEIGHTS, density=[0.5, 0.9, 0.7], gamma=[0.1, 0.2, 0.0]),
    case("breadcrumbs_ties", weight=WEIGHTS, density=[0.5, 0.9, 0.7], gamma=[0.1, 0.2, 0.0], rescale=True),
    case("sce"),
    case("sce", select_topk=0.4),
    case("model_stock"),
    case("model_stock", filter_wise=True),
    case("nearswap", 1, t=0.05),
    case("arcee_fusion", 1, dtype="float64"),
    case("ram"),
    case("ram", epsilon=0.05),
    case("ramplus_tl", epsilon=0.05, r=0.5, alpha=0.9),
    case("passthrough", 1, base=False),
    case("passthrough", 1, base=False, scale=[0.5]),
]

SHAPES = {"a.weight": (6, 5), "b.weight": (4, 3), "c.bias": (7,)}
