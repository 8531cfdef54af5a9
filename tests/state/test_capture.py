import torch

from resumecheck.state.capture import NON_PERSISTENT, LiveState, digest_leaves, identity_facts


def live(model, optimizer, **others):
    return LiveState(models={"model": model}, optimizers={"optimizer": optimizer}, schedulers=others)


def stepped(model, optimizer):
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_moments_are_named_after_their_parameter_not_their_position():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    forward = torch.optim.AdamW(model.parameters())
    stepped(model, forward)
    backward = torch.optim.AdamW(reversed(list(model.parameters())))
    backward.state = forward.state
    moments = digest_leaves(live(model, forward))["optimizer-moments"]
    assert moments == digest_leaves(live(model, backward))["optimizer-moments"]
    assert "exp_avg|0.weight" in moments


def test_a_non_persistent_buffer_is_told_from_a_persistent_one():
    model = torch.nn.Linear(3, 3)
    model.register_buffer("kept", torch.zeros(2))
    model.register_buffer("lost", torch.zeros(2), persistent=False)
    buffers = digest_leaves(live(model, torch.optim.SGD(model.parameters(), 0.1)))["buffers"]
    assert set(buffers) == {"buffer|kept", f"{NON_PERSISTENT}|lost"}


def test_a_parameter_outside_the_model_is_a_loss_parameter():
    model, temperature = torch.nn.Linear(3, 3), torch.nn.Parameter(torch.tensor(1.0))
    optimizer = torch.optim.AdamW([*model.parameters(), temperature])
    state = digest_leaves(live(model, optimizer))
    assert list(state["loss-parameters"].values()) == ["float32[]=1.0"]


def test_the_learning_rate_belongs_to_the_schedule_where_there_is_one():
    model = torch.nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    assert "lr|group 0" in digest_leaves(live(model, optimizer))["optimizer-hyperparameters"]
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    state = digest_leaves(live(model, optimizer, lr_scheduler=schedule))
    assert "lr|group 0" in state["lr-scheduler"]
    assert "lr|group 0" not in state["optimizer-hyperparameters"]


def test_a_schedule_that_holds_another_optimizer_is_a_fact():
    model = torch.nn.Linear(3, 3)
    optimizer, other = (torch.optim.SGD(model.parameters(), 0.1) for _ in range(2))
    schedule = torch.optim.lr_scheduler.StepLR(other, 1)
    assert identity_facts(live(model, optimizer, lr_scheduler=schedule))["lr_scheduler holds the optimizer"] is False
    assert identity_facts(live(model, other, lr_scheduler=schedule))["lr_scheduler holds the optimizer"] is True


def test_a_parameter_that_no_optimizer_trains_is_a_fact():
    model = torch.nn.Linear(3, 3)
    facts = identity_facts(live(model, torch.optim.SGD([model.weight], 0.1)))
    assert facts["trained but in no optimizer"] == ["bias"]


def test_tied_weights_are_a_fact():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    assert identity_facts(live(model, optimizer))["tied"] == []
    model[1].weight = model[0].weight
    assert identity_facts(live(model, optimizer))["tied"] == ["1.weight = 0.weight"]
