"""The monitor as a callback: training in Lightning, transformers and Keras goes on bit for bit, and the log is right."""

from __future__ import annotations

import gc
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import transformers
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.overrides import _get_current_function_mode_stack
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torch.utils.tensorboard import SummaryWriter

import nonsmooth as ns
from nonsmooth.errors import UsageError

pytestmark = [
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
]
QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False, "logger": False}
TRAINED = 32
"""The samples of an epoch, of which every other one is zero."""


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    yield
    gc.collect()
    assert not _get_current_function_mode_stack()


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def the_same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))


# Lightning


class Classifier(pl.LightningModule):
    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__()
        self.fails_at = fails_at
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Dropout(0.1))
        self.head = torch.nn.Linear(6, 2)
        torch.nn.init.zeros_(self.net[0].bias)  # type: ignore[arg-type]

    def loss(self, batch: Any) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(self.head(self.net(batch[0])), batch[1])

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        if index == self.fails_at:
            raise ZeroDivisionError
        loss = self.loss(batch)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("validation", self.loss(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Adversaries(Classifier):
    """Two optimisers, stepped by hand."""

    automatic_optimization = False

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, index: int) -> None:  # type: ignore[override]
        for optimiser, sign in zip(self.optimizers(), (1, -1), strict=True):
            self.toggle_optimizer(optimiser)
            optimiser.zero_grad()
            self.manual_backward(sign * self.loss(batch))
            optimiser.step()
            self.untoggle_optimizer(optimiser)

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(part.parameters(), lr=0.01) for part in (self.head, self.net)]


def fit(module: pl.LightningModule, *callbacks: Any, epochs: int = 2, ckpt: Any = None, **options: Any) -> pl.Trainer:
    inputs = torch.randn(TRAINED, 4, generator=torch.Generator().manual_seed(0))
    inputs[::2] = 0
    data = TensorDataset(inputs, torch.arange(TRAINED) % 2)
    options = {**QUIET, "log_every_n_steps": 1, **options}
    trainer = pl.Trainer(accelerator="cpu", max_epochs=epochs, callbacks=list(callbacks), **options)
    loader = DataLoader(data, batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(0))
    trainer.fit(module, loader, DataLoader(data, batch_size=16), ckpt_path=ckpt)
    return trainer


def seeded(kind: type[Classifier], **options: Any) -> Classifier:
    pl.seed_everything(0, verbose=False)
    return kind(**options)


@pytest.mark.parametrize(
    ("options", "batches"),
    [
        ({"precision": "32-true"}, 1),
        ({"precision": "bf16-mixed"}, 1),
        ({"accumulate_grad_batches": 2}, 2),
        ({"gradient_clip_val": 0.1, "val_check_interval": 2, "num_sanity_val_steps": 0}, 1),
    ],
)
def test_lightning_trains_bit_for_bit(options: dict[str, Any], batches: int) -> None:
    monitor = ns.callbacks.lightning(every=1, change_every=1)
    fit(without := seeded(Classifier), **options)
    fit(watched := seeded(Classifier), monitor, **options)
    assert the_same(without, watched)
    records, steps = monitor.log.records, 2 * TRAINED // 8 // batches
    assert [record.step for record in records] == list(range(steps)) and monitor.log.steps == steps
    first = records[0]
    assert (first.rows[0].module, first.rows[0].operation, first.backwards) == ("net.1", "relu", batches)
    assert (
        first.rows[0].elements == batches * 8 * 6
    )  # one forward pass for each batch: neither sanity check nor validation
    assert first.active % 6 == 0 and 0 < first.active < first.rows[0].elements
    assert all(record.rows[0].elements == batches * 8 * 6 for record in records)
    assert first.change is not None and list(first.change.parameters) == ["net.0.bias"]


def test_lightning_with_two_optimisers_in_turn() -> None:
    """The first one counts the steps; while it has its turn, what the other trains is frozen, and meets no kinks."""
    monitor = ns.callbacks.lightning(every=1, change_every=1)
    fit(without := seeded(Adversaries))
    fit(watched := seeded(Adversaries), monitor)
    assert the_same(without, watched)
    first, *others = monitor.log.records
    assert len(others) == 7 and not first.rows and first.backwards == 1
    assert all([(row.module, row.elements) for row in record.rows] == [("net.1", 8 * 6)] for record in others)
    assert all(record.backwards == 2 for record in others)
    assert others[0].active % 6 == 0 and others[0].change is not None
    assert list(others[0].change.parameters) == ["net.0.bias"]


def test_lightning_ends_with_an_exception(tmp_path: Path) -> None:
    monitor = ns.callbacks.lightning(every=1, log=tmp_path / "log.jsonl")
    with pytest.raises(ZeroDivisionError):
        fit(seeded(Classifier, fails_at=2), monitor)
    assert not _get_current_function_mode_stack()
    assert [record.step for record in monitor.log.records] == [0, 1]
    fit(seeded(Classifier), monitor, epochs=1)
    assert len(monitor.log.records) == 4 and len((tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()) == 6


def test_lightnings_own_tensorboard_is_written_with_its_steps(tmp_path: Path) -> None:
    first = fit(seeded(Classifier), ns.callbacks.lightning(every=2), logger=TensorBoardLogger(tmp_path / "first"))
    assert [step for step, _ in read(Path(first.logger.log_dir))["kinks/active"]] == [0, 2, 4, 6]  # type: ignore[union-attr]
    first.save_checkpoint(tmp_path / "half.ckpt")
    second = fit(
        seeded(Classifier),
        ns.callbacks.lightning(every=2),
        logger=TensorBoardLogger(tmp_path / "second"),
        epochs=3,
        ckpt=tmp_path / "half.ckpt",
    )
    assert [step for step, _ in read(Path(second.logger.log_dir))["kinks/active"]] == [8, 10]  # type: ignore[union-attr]
    with SummaryWriter(str(tmp_path / "own")) as writer:
        third = fit(
            seeded(Classifier),
            ns.callbacks.lightning(every=2, tensorboard=writer),
            logger=TensorBoardLogger(tmp_path / "third"),
        )
    assert "kinks/active" in read(tmp_path / "own")
    assert "kinks/active" not in read(Path(third.logger.log_dir))  # type: ignore[union-attr]


OTHER_NAME = """
import sys, torch, pytorch_lightning as pl, nonsmooth as ns
from torch.utils.data import DataLoader, TensorDataset

class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU())

    def training_step(self, batch, index):
        return self.net(batch[0]).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

monitor = ns.callbacks.lightning(every=1)
assert isinstance(monitor, pl.Callback) and "lightning.pytorch" not in sys.modules
quiet = dict(enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, logger=False)
trainer = pl.Trainer(accelerator="cpu", max_epochs=1, callbacks=[monitor], **quiet)
trainer.fit(Module(), DataLoader(TensorDataset(torch.zeros(8, 4)), batch_size=4))
assert len(monitor.log.records) == 2
"""


@pytest.mark.slow
def test_the_other_name_of_lightning() -> None:
    """In a process that imports `pytorch_lightning` alone the callback is one of that package."""
    subprocess.run([sys.executable, "-c", OTHER_NAME], check=True, timeout=300, capture_output=True)


def test_a_compiled_lightning_module_is_refused() -> None:
    with pytest.raises(UsageError, match="compiled"):
        fit(torch.compile(seeded(Classifier), backend="eager"), ns.callbacks.lightning())  # type: ignore[arg-type]


def test_callbacks_are_checked_when_they_are_made() -> None:
    for make in (ns.callbacks.lightning, ns.callbacks.transformers):
        with pytest.raises(UsageError, match="every=0"):
            make(every=0)
        with pytest.raises(UsageError, match="no add_scalar"):
            make(tensorboard="runs")
        with pytest.raises(TypeError, match="evry"):
            make(evry=1)
        with pytest.raises(UsageError, match="begins with the training"):
            _ = make(reduce=True).log
        assert pickle.loads(pickle.dumps(make(every=7)))._options["every"] == 7


# transformers


class Sentences(Dataset[Any]):
    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        words = torch.randint(50, (6,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": words, "labels": words if self.generative else torch.tensor(index % 2)}

    def __init__(self, generative: bool) -> None:
        self.generative = generative


def bert() -> Any:
    """A small BERT of relus, whose first block begins at its kinks."""
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        hidden_act="relu",
    )
    model = transformers.BertForSequenceClassification(config)
    torch.nn.init.zeros_(model.bert.encoder.layer[0].intermediate.dense.weight)
    return model


def gpt2() -> Any:
    config = transformers.GPT2Config(
        vocab_size=50, n_positions=8, n_embd=16, n_layer=1, n_head=2, n_inner=12, activation_function="relu"
    )
    model = transformers.GPT2LMHeadModel(config)
    torch.nn.init.zeros_(model.transformer.h[0].mlp.c_fc.weight)
    return model


def trained(make: Any, folder: Path, *callbacks: Any, **options: Any) -> transformers.Trainer:
    transformers.set_seed(0)
    model = make()
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "num_train_epochs": 1,
        "use_cpu": True,
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "dataloader_pin_memory": False,
    }
    arguments = transformers.TrainingArguments(**{**settings, **options})
    data = Sentences(make is gpt2)
    trainer = transformers.Trainer(model, arguments, train_dataset=data, eval_dataset=data, callbacks=list(callbacks))
    trainer.train()
    return trainer


@pytest.mark.parametrize(
    ("make", "options", "batches"),
    [
        (bert, {}, 1),
        (bert, {"bf16": True}, 1),
        (gpt2, {"gradient_accumulation_steps": 2}, 2),
        (gpt2, {"eval_strategy": "steps", "eval_steps": 2, "eval_on_start": True}, 1),
        (bert, {"activation_checkpointing": True}, 1),
    ],
)
def test_transformers_train_bit_for_bit(make: Any, options: dict[str, Any], batches: int, tmp_path: Path) -> None:
    monitor = ns.callbacks.transformers(every=2, change_every=1)
    without = trained(make, tmp_path, **options)
    watched = trained(make, tmp_path, monitor, **options)
    assert the_same(without.model, watched.model)
    steps = 6 // batches
    assert [record.step for record in monitor.log.records] == list(range(0, steps, 2)) and monitor.log.steps == steps
    first, (row, *_) = monitor.log.records[0], monitor.log.records[0].rows
    assert (row.operation, row.elements, row.active) == ("relu", batches * 4 * 6 * 12, batches * 4 * 6 * 12)
    assert row.can_matter and first.backwards == batches and row.module.split(".")[-1] in ("intermediate_act_fn", "act")
    assert first.change is not None or "activation_checkpointing" in options


class Interrupting(transformers.TrainerCallback):  # type: ignore[misc]
    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if state.global_step == 2:
            raise KeyboardInterrupt


def test_transformers_end_with_an_exception(tmp_path: Path) -> None:
    """The trainer calls nothing back then; the log ends as soon as the exception has been dealt with."""
    monitor = ns.callbacks.transformers(every=1)
    with pytest.raises(KeyboardInterrupt):
        trained(bert, tmp_path, monitor, Interrupting())
    gc.collect()
    assert not _get_current_function_mode_stack()
    assert [record.step for record in monitor.log.records] == [0, 1]


def test_what_an_exception_kept_alive_ends_before_the_next_run(tmp_path: Path) -> None:
    first, second = (ns.callbacks.transformers(every=1, change_every=1) for _ in range(2))
    with pytest.raises(KeyboardInterrupt) as kept:  # as a notebook keeps the last one
        trained(bert, tmp_path, first, Interrupting())
    assert kept and _get_current_function_mode_stack()
    trained(bert, tmp_path, second)
    assert len(first.log.records) == 2 and not _get_current_function_mode_stack()
    assert len(second.log.records) == 6 and second.log.records[0].change is not None
    del kept


def test_reports_of_transformers_to_tensorboard_carry_the_kinks(tmp_path: Path) -> None:
    trained(bert, tmp_path / "out", ns.callbacks.transformers(every=2), report_to="tensorboard")
    (events,) = (tmp_path / "out").rglob("events.*")
    assert [step for step, _ in read(events.parent)["kinks/active"]] == [0, 2, 4]


def test_a_compiled_run_of_transformers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="torch_compile"):
        trained(bert, tmp_path, ns.callbacks.transformers(), torch_compile=True, torch_compile_backend="eager")


# Keras

PROGRAM = str(Path(__file__).with_name("keras_program.py"))


@pytest.fixture(scope="module")
def keras(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run the program on the torch backend."""
    return keras_on("torch", tmp_path_factory.mktemp("keras"))


def keras_on(backend: str, folder: Path) -> Any:
    process = subprocess.run(
        [sys.executable, PROGRAM, str(folder / "log.jsonl")],
        env={**os.environ, "PYTHONWARNINGS": "error", "KERAS_HOME": str(folder), "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("name", "steps", "backwards", "modules"),
    [
        ("convolutional", 8, 1, ["act", "max_pooling2d_1", "head.hidden"]),
        ("functional", 10, 1, ["left", "right", "maximum_1"]),
        ("blocks", 5, 2, ["block0", "block1"]),
        ("loss scaled", 10, 1, ["block0", "block1"]),
        ("mixed", 4, 1, ["left", "right", "maximum_3"]),
    ],
)
def test_keras_trains_bit_for_bit(
    keras: dict[str, Any], name: str, steps: int, backwards: int, modules: list[str]
) -> None:
    found = keras["fit"][name]
    every = 3 if name == "mixed" else 1
    assert found["same"] and found["backwards"] == backwards
    assert found["steps"] == list(range(0, every * steps, every))
    assert [row[0] for row in found["rows"]] == modules
    _, operation, elements, active, can_matter, line = found["rows"][0]
    assert operation == "relu" and 0 < active < elements and can_matter is not None and "keras_program.py" in line
    assert all(parameter.endswith("/bias") for parameter in found["change"]) and found["change"]


def test_keras_ends_with_an_exception(keras: dict[str, Any]) -> None:
    assert keras["failing"] == {"free": True, "again": 5, "lines": 2 + 5}


def test_keras_is_refused_where_it_cannot_be_watched(keras: dict[str, Any]) -> None:
    refused = keras["refused"]
    assert "every=0" in refused["option"] and "begins with the training" in refused["unbegun"]
    assert "jit_compile=True" in refused["compiled"]
    assert "jax backend" in refused["backend"] and 'KERAS_BACKEND="torch"' in refused["backend"]


@pytest.mark.slow
def test_keras_on_another_backend_is_refused(tmp_path: Path) -> None:
    assert "jax backend" in keras_on("jax", tmp_path)
