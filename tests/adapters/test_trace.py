"""Inside one step: the first module whose inputs agree and whose output differs."""

import torch

from resumecheck.adapters.trace import StepTrace, first_place


class Net(torch.nn.Module):
    def __init__(self, scale=1.0, gradient_scale=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
        self.scale, self.gradient_scale = scale, gradient_scale

    def forward(self, x):
        hidden = self.first(x)
        if self.gradient_scale != 1.0:
            hidden.register_hook(lambda gradient: gradient * self.gradient_scale)
        return self.second(hidden) * self.scale


def trace(model, path):
    recorded = StepTrace({"model": model})
    model(torch.ones(2, 3)).sum().backward()
    recorded.close(path)
    return path


def test_equal_steps_have_no_place(tmp_path):
    assert first_place(trace(Net(), tmp_path / "a"), trace(Net(), tmp_path / "b")) is None


def test_the_innermost_module_that_differs_is_named(tmp_path):
    other = Net()
    other.second.bias.data += 1
    place = first_place(trace(Net(), tmp_path / "a"), trace(other, tmp_path / "b"))
    assert (place.direction, place.name) == ("forward", "second")


def test_what_happens_between_the_children_is_the_parents(tmp_path):
    place = first_place(trace(Net(), tmp_path / "a"), trace(Net(scale=2.0), tmp_path / "b"))
    assert (place.direction, place.name) == ("forward", "model")


def test_a_gradient_that_is_changed_on_the_way_is_seen_going_backward(tmp_path):
    place = first_place(trace(Net(), tmp_path / "a"), trace(Net(gradient_scale=2.0), tmp_path / "b"))
    assert place.direction == "backward"
    assert place.name.startswith("first")


def test_no_hook_stays(tmp_path):
    model = Net()
    trace(model, tmp_path / "a")
    assert not any(module._forward_hooks for module in model.modules())
