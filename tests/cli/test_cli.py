"""The command: exit statuses, what goes to which stream, and JSON that parses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

import nonsmooth
from nonsmooth import cli
from nonsmooth.audit.gate import failures

PROBLEMS = """
import torch
print("loading")

def loss(x, y):
    return (torch.relu(x) * y).sum()

def problem():
    print("making")
    return loss, torch.tensor([0.0, 1.0, -0.05]), torch.ones(3)

def broken():
    return (lambda x: x @ torch.ones(7)), torch.zeros(3)

def complex_point():
    return torch.abs, torch.zeros(1, dtype=torch.complex64)

def several():
    return torch.relu, torch.zeros(3)

def number():
    return 3
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("problems") / "[red]model.py"
    path.write_text(PROBLEMS)
    return str(path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments), prog_name="nonsmooth")


def parsed(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    data = json.loads(result.stdout, parse_constant=refuse)
    assert data["format_version"] == 1
    return data


def test_audit(file: str, tmp_path: Path) -> None:
    result = run("audit", f"{file}:problem", "-o", str(tmp_path / "out"))
    assert result.exit_code == 0
    assert result.stdout.startswith("Audit of loss at one point") and "[red]model.py:6" in result.stdout
    assert "loading" not in result.stdout and "making" not in result.stdout
    assert "loading\nmaking\n" in result.stderr and "report.json" in result.stderr
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"report.json", "report.txt", "report.html", "kinks.png", "margins.png", "effects.png"}


def test_audit_as_json(file: str) -> None:
    data = parsed(run("audit", f"{file}:problem", "--json", "--tol", "0.1"))
    assert data["tol"] == 0.1 and data["kinks"][0]["active"] == 2 and data["function"] == "loss"


def test_kinks(file: str) -> None:
    result = run("kinks", f"{file}:problem")
    assert result.exit_code == 0 and result.stdout.startswith("1 active kink(s) in 1 of 1 rows")
    assert max(map(len, result.stdout.splitlines())) <= 100
    data = parsed(run("kinks", f"{file}:problem", "--json"))
    assert (data["count"], data["rows"][0]["operation"], data["rows"][0]["elements"]) == (1, "relu", 3)
    assert "mask" not in data["rows"][0]


@pytest.mark.parametrize("command", ["audit", "kinks"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "has no name 'nothing'"),
        ("number", "must return (function, point, *data)"),
        ("broken", "RuntimeError"),
        ("complex_point", "complex"),
    ],
)
def test_wrong_use_is_told_on_standard_error(file: str, command: str, name: str, message: str) -> None:
    result = run(command, f"{file}:{name}")
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr and "nonsmooth: " in result.stderr and "Traceback" not in result.stderr


def test_an_error_of_the_user_has_its_line(file: str) -> None:
    result = run("audit", f"{file}:broken")
    assert f"raised at {file}:13: RuntimeError" in result.stderr


def test_other_wrong_uses(file: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    for arguments, message in (
        (("audit", f"{tmp_path}/nothing.py:p"), "there is no file"),
        (("audit", "nothing"), "not FILE.py:NAME"),
        (("audit", f"{file}:several"), "scalar"),
        (("audit", f"{file}:problem", "--tol", "-1"), "tol"),
        (("audit", f"{file}:problem", "-o", str(tmp_path / "taken")), "cannot be written"),
        (("audit",), "Missing argument"),
        (("audit", f"{file}:problem", "--nonsense"), "No such option"),
        (("nonsense",), "No such command"),
        (("ops", "--kind", "nonsense"), "the kinds are affine, smooth"),
        (("conventions", "nonsense"), "measured are: abs"),
        (("study", "digits", "--data", "nonsense"), "data sets"),
        (("study", "digits", "--steps", "0"), "at least 2 steps"),
        (("study", "digits", "--initialisations", "-1"), "initialisations=-1"),
        (("study", "digits", "--workers", "0"), "workers=0"),
        (("study", "relu-prime", "--alphas", "0,nan"), "finite numbers"),
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (2, ""), arguments
        assert message in result.stderr, (arguments, result.stderr)


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").write_text("")
    for name in ("slides", "field", "ridge"):
        monkeypatch.setattr(f"nonsmooth.studies.{name}.study_{name}", lambda **_: pytest.fail("it was computed"))
        result = run("study", name, "-o", str(tmp_path / "taken" / "deeper"))
        assert (result.exit_code, result.stdout) == (2, "") and "cannot be written" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_bug_of_the_library_is_not_hidden(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nonsmooth, "audit", int)
    result = run("audit", f"{file}:problem")
    assert result.exit_code == 1 and isinstance(result.exception, TypeError)


def test_a_missing_framework_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nonsmooth.frameworks.torch.names", None)
    result = run("ops", "--missing")
    assert result.exit_code == 2 and "nonsmooth[torch]" in result.stderr


def test_ops() -> None:
    names = [o.name for o in nonsmooth.operations()]
    assert run("ops").stdout.startswith(f"{len(names)} operations")
    assert [row[0] for row in parsed(run("ops", "--json"))["rows"]] == names
    cones = parsed(run("ops", "--kind", "cone", "--json"))["rows"]
    assert {row[1] for row in cones} == {"cone"} and "vector_norm" in {row[0] for row in cones}


def test_ops_that_are_missing() -> None:
    from nonsmooth.frameworks.torch.names import missing

    assert [row[0] for row in parsed(run("ops", "--missing", "--json"))["rows"]] == missing()
    assert run("ops", "--missing").stdout.startswith(
        f"{len(missing())} differentiable operators of torch are not served"
    )


def test_conventions() -> None:
    data = parsed(run("conventions", "--json"))
    tables, agreement = data["tables"], data["agreement"]
    rules = {(row[0], row[1]): row[3:] for row in tables[0]["rows"]}
    assert [c.split()[0] for c in tables[0]["columns"][3:]] == ["torch", "jax", "tensorflow", "agree"]
    assert [c.split()[1] for c in tables[0]["columns"][3:6]] == list(data["versions"].values())
    assert rules["abs", "0"] == ["0 (weight 0.5)", "1 (weight 1)", "0 (weight 0.5)", False]
    assert rules["relu", "0"][3] is True and rules["rrelu", "0, evaluation"][3] is None
    formulas = {(row[0], row[1]): row[2:] for row in tables[1]["rows"]}
    assert formulas["identity", "relu(x) - relu(-x)"] == ["1", "0", "0", "0", True]
    assert len(rules) > 100 and agreement["formulas"] == len(formulas) > 10
    assert "abs" in agreement["differing"] and "relu" not in agreement["differing"]
    assert (
        agreement["operations"]
        > len(agreement["differing"])
        == len({row[0] for row in tables[0]["rows"] if row[6] is False})
    )
    text = run("conventions").stdout
    assert max(map(len, text.splitlines())) <= 100 and "Formulas" in text
    assert f"differ on {len(agreement['differing'])} of {agreement['operations']} operations" in " ".join(text.split())
    assert all(f"{name} {version}" in " ".join(text.split()) for name, version in data["versions"].items())


def test_conventions_of_one_operation() -> None:
    tables = parsed(run("conventions", "max_dim", "--json"))["tables"]
    assert len(tables) == 2 and {row[0] for row in tables[0]["rows"]} == {"max_dim"}
    assert "tf.reduce_max(x, axis=0)" in tables[1]["rows"][0][3]
    assert "Formulas" in run("conventions", "softplus").stdout


def test_conventions_that_differ() -> None:
    tables = parsed(run("conventions", "--differing", "--json"))["tables"]
    assert {row[-1] for table in tables for row in table["rows"]} == {False}
    assert len(tables[0]["rows"]) > 20
    assert parsed(run("conventions", "relu", "--differing", "--json"))["tables"] == []


def test_version_and_help() -> None:
    assert run("--version").stdout == f"nonsmooth {nonsmooth.__version__}\n"
    text = run("--help").stdout
    for command in ("audit", "kinks", "ops", "conventions", "study"):
        assert command in text
        assert run(command, "--help").exit_code == 0


def test_the_installed_command(file: str) -> None:
    command = [sys.executable, "-c", "from nonsmooth.cli import main; main()"]
    done = subprocess.run(
        [*command, "kinks", f"{file}:problem", "--json"], capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0 and json.loads(done.stdout)["count"] == 1
    assert done.stderr == b"loading\nmaking\n"
    done = subprocess.run([*command, "kinks", "nothing.py:p"], capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (2, b"") and done.stderr == b"nonsmooth: there is no file 'nothing.py'.\n"


FAILING = """
import torch

def smooth():
    return (lambda x: (x * x).sum()), torch.ones(2)

def differs():
    return (lambda x: (torch.relu(x) - torch.relu(-x)).sum()), torch.zeros(2)

def harmless():
    return (lambda x: (0 * torch.relu(x) + x).sum()), torch.zeros(2)

def jump():
    return (lambda x: (torch.sign(x) + x * 2).sum() + torch.sign(2 * x).sum()), torch.zeros(2)

def singular():
    return (lambda x: torch.sqrt(x).sum()), torch.tensor([0.0, 1.0])

def value():
    return (lambda x: (torch.log(x) - torch.log(x)).sum()), torch.zeros(2)
"""


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("problems") / "failing.py"
    path.write_text(FAILING)
    return str(path)


@pytest.mark.parametrize(
    ("name", "words", "fired"),
    [
        ("smooth", "differs,artifact,undecided,jump,singular,nan,kink", ""),
        ("differs", "differs", "differs (1 finding)"),
        ("differs", "artifact", "artifact (1 finding)"),
        ("differs", "undecided,jump,singular,nan", ""),
        ("differs", "nan, kink ,differs", "kink (2 findings), differs (1 finding)"),
        ("harmless", "kink,differs", ""),
        ("jump", "jump", "jump (2 findings)"),
        ("jump", "undecided", "undecided (1 finding)"),
        ("jump", "differs,artifact,singular,kink", ""),
        ("singular", "singular", "singular (1 finding)"),
        ("singular", "nan", "nan (1 finding)"),
        ("singular", "undecided", "undecided (1 finding)"),
        ("singular", "jump,kink", ""),
    ],
)
def test_fail_on(failing: str, name: str, words: str, fired: str) -> None:
    result = run("audit", f"{failing}:{name}", "--fail-on", words)
    assert result.exit_code == (1 if fired else 0), result.stderr
    assert result.stdout.startswith("Audit of ") and "Cost (measured)" in result.stdout
    last = result.stderr.splitlines()[-1:]
    assert last == ([f"nonsmooth: failed on {fired}"] if fired else [])


def test_fail_on_prints_and_writes_the_whole_report(failing: str, tmp_path: Path) -> None:
    result = run("audit", f"{failing}:differs", "--fail-on", "differs", "--json", "-o", str(tmp_path / "out"))
    assert result.exit_code == 1 and json.loads(result.stdout)["verdict"]["word"] == "artifact"
    assert (tmp_path / "out" / "report.json").exists()
    assert result.stderr.splitlines()[-1] == "nonsmooth: failed on differs (1 finding)"


def test_a_value_of_nan_has_no_derivative_at_all(failing: str) -> None:
    result = run("audit", f"{failing}:value", "--fail-on", "nan")
    assert (result.exit_code, result.stdout) == (2, "") and "its value is nan" in result.stderr
    program = nonsmooth.capture(lambda x: torch.log(x).sum(), torch.ones(2))
    assert failures(nonsmooth.audit(program, torch.zeros(2)), ("nan",)) == {"nan": 2}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("jmp", "--fail-on 'jmp' is no finding (did you mean 'jump'?); the words are differs, artifact, undecided"),
        ("nan,Kink", "(did you mean 'kink'?)"),
        ("everything", "'everything' is no finding; the words are"),
        ("", "names no finding"),
        (" , ", "names no finding"),
    ],
)
def test_fail_on_refuses_unknown_words(failing: str, words: str, message: str) -> None:
    result = run("audit", f"{failing}:differs", "--fail-on", words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in " ".join(result.stderr.split())


def test_a_model_of_torchs_own_modules_names_its_modules(tmp_path: Path) -> None:
    """No line of the user's runs the relu: the module is named, and never a line of the command."""
    problem = tmp_path / "problem.py"
    problem.write_text(
        "import torch\nimport nonsmooth as ns\n\n\ndef problem():\n"
        "    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))\n"
        "    torch.nn.init.zeros_(model[0].bias)\n"
        "    f, x = ns.objective(model, lambda output, target: (output - target).square().sum())\n"
        "    return f, x, torch.zeros(4, 2), torch.ones(4, 1)\n"
    )
    result = run("audit", f"{problem}:problem")
    assert result.exit_code == 0, result.output
    assert "cli.py" not in result.output and "own modules" in result.output
