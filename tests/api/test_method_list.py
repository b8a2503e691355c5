"""The list of methods: what it says about each is what the method does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import hubmerge
from hubmerge.cli.main import main
from hubmerge.methods.joint.methods import JOINT_METHODS
from hubmerge.methods.registry import METHODS
from tests.plugins import distribution, faulty

__all__ = ["faulty"]  # a fixture

Tensors = dict[str, torch.Tensor]
ALL = hubmerge.methods()
SEVERAL = [method for method in ALL if method.most != 1]
VALUES: dict[str, Any] = {"weight": 0.5, "density": 0.5}
"""Values of parameters for which random methods draw and no method copies a single model."""


def make_models(count: int, *, grid: bool) -> tuple[Tensors, list[Tensors]]:
    """Return a base model and fine-tuned ones; with a grid, many changes have equal magnitudes."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"layers.0.weight": (6, 5), "layers.1.weight": (6, 5), "norm.bias": (5,)}
    base = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}

    def change(shape: tuple[int, ...]) -> torch.Tensor:
        if grid:
            return torch.randint(-1, 2, shape, generator=generator) / 8
        return 0.1 * torch.randn(shape, generator=generator)

    return base, [{name: base[name] + change(shape) for name, shape in shapes.items()} for _ in range(count)]


def merged(method: hubmerge.MethodInfo, base: Tensors, tuned: Sequence[Tensors]) -> Tensors:
    wanted = [parameter.name for parameter in method.parameter_details if parameter.name in VALUES]
    if method.form == "stream":
        wanted = []
    parameters: Mapping[str, Any] = {name: VALUES[name] for name in wanted}
    if method.name in ("svc", "lines"):
        parameters = {**VALUES, "of": "dare_linear"}
    recipe = {"form": "joint"} if sum(one.name == method.name for one in ALL) > 1 and method.form == "joint" else None
    return hubmerge.merge_state_dicts(base, tuned, method=method.name, parameters=parameters, recipe=recipe)


def distance(one: Tensors, other: Tensors) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("method", SEVERAL, ids=lambda method: f"{method.name}-{method.form}")
def test_the_order_matters_where_the_list_says_so(method: hubmerge.MethodInfo) -> None:
    count = min(method.most or 3, 3)
    found = []
    for grid in (False, True) if not method.order_free else (False,):
        base, tuned = make_models(count, grid=grid)
        found.append(distance(merged(method, base, tuned), merged(method, base, tuned[::-1])))
    assert (max(found) < 1e-5) == method.order_free, found


def test_methods_whose_states_add_up_do_not_depend_on_the_order() -> None:
    assert {method.name for method in METHODS if method.adds} <= {
        method.name for method in METHODS if method.order_free
    }
    listed = {method.name: method for method in ALL if method.form == "stream"}
    for one in METHODS:
        assert (listed[one.name].revokes, listed[one.name].combines) == (one.revokes, one.adds)
    assert not any(method.revokes or method.combines for method in ALL if method.form == "joint")


@pytest.mark.parametrize("method", ALL, ids=lambda method: f"{method.name}-{method.form}")
def test_the_text_about_a_method_has_all_of_it(method: hubmerge.MethodInfo) -> None:
    text = method.details
    assert method.description
    assert method.source in text
    assert "Args:" not in text
    names = [parameter.name for parameter in method.parameter_details]
    assert [name for name in names if f"\n  {name} " in text] == names
    assert not [parameter.name for parameter in method.parameter_details if not parameter.description]
    assert not [paper for paper in method.papers if paper not in text]
    assert bool(method.papers) == ("arXiv" in method.source)


def test_parameters_have_defaults_and_ranges() -> None:
    (opcm,) = hubmerge.methods("opcm")
    alpha, diagonal = (one for one in opcm.parameter_details if one.name in ("alpha", "diagonal"))
    assert str(alpha).startswith("alpha = 0.5: number from 0 to 1 or auto; per tensor; per entry\n")
    assert str(diagonal).startswith("diagonal = remove: remove or keep\n")
    (wudi,) = hubmerge.methods("wudi")
    assert "\n  ridge = 0.1: number > 0\n" in wudi.details
    assert "revoke     yes\n" in wudi.details
    (slerp,) = hubmerge.methods("slerp")
    assert "\n  t (required): number" in slerp.details
    assert "models     1 model and the base model\n" in slerp.details


def shown(words: Iterable[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main(["methods", *words])
    return (status, *capsys.readouterr())


def test_the_command_describes_both_forms_of_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    status, output, _ = shown(["linear"], capsys)
    assert status == 0
    assert output == "\n\n".join(method.details for method in hubmerge.methods("linear")) + "\n"
    assert len({method.name for method in JOINT_METHODS} & {method.name for method in METHODS}) == 3


@pytest.mark.parametrize(("name", "hint"), [("opmc", "did you mean opcm?"), ("x" * 60, "`hubmerge methods`")])
def test_an_unknown_name_is_a_mistake_with_a_way_out(name: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, output, errors = shown([name], capsys)
    assert (status, output) == (2, "")
    assert f"no merge method '{name}'" in errors
    assert hint in errors


def test_methods_of_other_packages(faulty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        "from hubmerge import Absorbed, Method",
        "class Sum(Method):",
        "    name, source, summary = 'plain_sum', 'by definition', 'sum of all task vectors'",
        "    def absorb(self, tensor):",
        "        return Absorbed(tensor.accumulated + tensor.task_vector)",
    ]
    points = "plain_sum = summing:Sum\nbroken = summing:missing"
    distribution(faulty, "summing", "hubmerge.methods", points, "\n".join(lines))
    status, output, _ = shown(["plain_sum"], capsys)
    assert status == 0
    assert output.startswith("plain_sum: sum of all task vectors\n\nmerges     one checkpoint after another")
    assert "from       summing 0.9\n\nparameters none\n" in output
    status, output, _ = shown(["broken"], capsys)
    assert (status, "broken: cannot be used: " in output) == (0, True)
