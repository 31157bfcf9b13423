# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The paper's CIFAR-100 row, on a Colab TPU or GPU
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/YOUR_ACCOUNT/sam_optax/blob/main/notebooks/tpu_cifar100.ipynb)
#
# ResNet-18 on CIFAR-100 with SGD, SAM and GSAM, each with a constant batch, a growing one, and a cosine rate: one row
# of the tables of Harada and Iiduka ([arXiv 2409.09984](https://arxiv.org/abs/2409.09984)), 200 epochs a cell. The
# batches are spread over all cores that the machine has. What is done is kept on your Drive, so a session that ends
# costs at most what was done since the last save: open the notebook again, and run all.
#
# **What was never tried: this notebook was never run on a TPU, nor on a GPU, in Colab or with Drive.** Its cells run
# in our tests on a CPU that acts as eight devices, with made-up images in archives of CIFAR-100's format, and a
# smaller network. How long a cell takes on an accelerator we do not know; the notebook measures it before it begins.
#
# In Colab choose *Runtime, Change runtime type*, and there a TPU or a GPU. Then run the cells one after the other.

# %% [markdown]
# ## Install
#
# A Colab machine has the JAX that fits its accelerator, so JAX stays as it is, and NumPy with it. TPU machines have
# no TensorFlow, of which the program needs the CPU's, to read the images; where one is there, it stays. In a clone of
# the repository the cell only finds it. The project is not published yet: `REPOSITORY` is to have its address.

# %%
import os
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

REPOSITORY = "https://github.com/YOUR_ACCOUNT/sam_optax"

above = (Path.cwd(), *Path.cwd().parents)
root = next((folder for folder in above if (folder / "experiments" / "train.py").is_file()), None)
if root is None:
    root = Path.cwd() / "sam_optax"
    if not root.exists():
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", REPOSITORY, str(root)], check=True)
    installed = {each.name.lower(): each.version for each in distributions()}
    kept = [f"{name}=={version}" for name, version in installed.items() if name.startswith(("jax", "numpy", "libtpu"))]
    extra = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]["experiments"]
    if "tensorflow" in installed:
        extra = [each for each in extra if not each.startswith(("tensorflow>", "tensorflow-cpu"))]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", str(root), *extra, *kept], check=True)

# %% [markdown]
# If pip says that it cannot find versions that go together, the machine's JAX is older than 0.10, which the library
# needs: take a newer runtime version, in the same menu.

# %%
import re
import signal
import time

from IPython.display import Image, Markdown, display
from tqdm import tqdm

# %% [markdown]
# ## Settings
#
# `CELLS` are the row's nine, in an order in which the first three already compare something. Take fewer, if you have
# less time. `OUTPUT` is where runs are kept; left as None, a folder on your Drive in Colab, and `runs/tpu_cifar100`
# elsewhere.

# %% tags=["parameters"]
MODEL = "resnet18"
SEED = 0
CONSTANT = "200x128"
INCREASING = "40x16,40x32,40x64,40x128,40x256"
CELLS = [(method, strategy) for strategy in ("constant", "increasing", "cosine") for method in ("sgd", "sam", "gsam")]
OUTPUT = None
DEVICES = None  # all of the accelerator's
DATA = []  # ["--data-dir", folder]: the prepared images; left out, on the machine's own disk
TRAIN_EXAMPLES = 50_000
TIMED_IMAGES = 128
SHARPNESS = ["--examples", 1024]
SAVE_EVERY = 2_000  # updates

# %% [markdown]
# ## The accelerator
#
# All that computes runs in programs of its own, here and below: only one process at a time can have a TPU, so this
# notebook itself leaves it alone.


# %%
def python(*words):
    """What a Python program of the repository prints."""
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=root, env=PLAIN, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def show(said):
    """What a program printed, its tables as such."""
    shown, columns = [], 0
    for line in map(str.strip, said.splitlines()):
        cells = re.split(r" {2,}", line)
        if set(line) == {"─"}:
            shown.append("| --- |" + " ---: |" * (columns - 1))
        else:
            columns = len(cells)
            shown.append(f"| {' | '.join(cells)} |" if columns > 1 else line)
    display(Markdown("\n".join(shown)))


PLAIN = os.environ | {"TTY_COMPATIBLE": "0", "COLUMNS": "160"}  # no bars and colours of a terminal
program = "import jax; print(jax.__version__, jax.default_backend(), jax.local_device_count())"
version, platform, count = python("-c", program).split()[-3:]
print(f"JAX {version} sees {count} device(s) of the kind {platform}")
if platform == "cpu":
    print("No accelerator: choose a TPU or a GPU in Runtime, Change runtime type. On a CPU the row would take weeks.")

# %% [markdown]
# ## Your Drive
#
# Colab asks for permission. Runs of the row need a few hundred megabytes: each keeps its last two saves while it runs,
# and its trained network at the end.

# %%
if OUTPUT is None and "google.colab" in sys.modules:
    from google.colab import drive

    drive.mount("/content/drive")
    OUTPUT = "/content/drive/MyDrive/sam_optax/tpu_cifar100"
output = root / (OUTPUT or "runs/tpu_cifar100")
output.mkdir(parents=True, exist_ok=True)
print("runs are kept in", output)

# %% [markdown]
# ## One run
#
# `experiments.train` trains one network. The words that matter here:
#
# - without `--devices` a batch is spread over all devices of the accelerator, and SAM's perturbation is that of the
#   whole batch: the result does not depend on their number, up to rounding;
# - `--saving.every` saves the run on its way, and `--resume` goes on from the last save, or begins where there is
#   none. A run that went on comes to the same numbers as one that was never stopped.
#
# The first run fetches CIFAR-100 and prepares it, which takes a few minutes more.

# %%
PLANS = {"constant": CONSTANT, "increasing": INCREASING, "cosine": CONSTANT}


def words_of(method, strategy):
    """The command line of a cell, with all settings of the row."""
    words = ["--dataset", "cifar100"]
    if TRAIN_EXAMPLES < 50_000:
        words += ["--train-examples", TRAIN_EXAMPLES]
    words += ["--model", MODEL, "--method", method, "--seed", SEED, "--batch-plan", PLANS[strategy]]
    words += ["--lr-schedule", "cosine" if strategy == "cosine" else "constant"]
    words += ["--learning-rate", 0.1, "--momentum", 0, "--rho", 0.05, "--alpha", 0.02, *DATA]
    return words if DEVICES is None else [*words, "--devices", DEVICES]


def updates_of(plan):
    """How many updates a plan makes: an epoch drops its last, incomplete batch."""
    stages = [map(int, stage.split("x")) for stage in plan.split(",")]
    return sum(epochs * (TRAIN_EXAMPLES // size) for epochs, size in stages)


def updates_done(folder):
    """The update that the last line of a run's metrics tells of, 0 where there is none."""
    metrics = folder / "metrics.jsonl"
    if not metrics.is_file():
        return 0
    with metrics.open("rb") as lines:
        lines.seek(max(0, metrics.stat().st_size - 4096))
        steps = re.findall(rb'"step": (\d+)', lines.read())
    return int(steps[-1]) if steps else 0


# %% [markdown]
# The program runs, and a bar follows the metrics that it writes. If you stop the cell, the run is saved first.


# %%
def train(method, strategy):
    """Begin a cell, or go on with it, and wait for its end."""
    folder = output / f"{method}-{strategy}-{SEED}"
    total = updates_of(PLANS[strategy])
    command = [sys.executable, "-m", "experiments.train", *map(str, words_of(method, strategy))]
    command += ["--output", str(folder), "--resume", "--saving.every", str(SAVE_EVERY)]
    with (output / f"{folder.name}.txt").open("w+") as log, tqdm(total=total, desc=folder.name, file=sys.stdout) as bar:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # stopping the cell is for the notebook to hear, alone
        running = subprocess.Popen(command, cwd=root, env=PLAIN, stdout=log, stderr=subprocess.STDOUT)
        signal.signal(signal.SIGINT, before)
        try:
            while running.poll() is None:
                if new := updates_done(folder) - bar.n:
                    bar.update(new)
                time.sleep(1)
            bar.update(updates_done(folder) - bar.n)
        finally:
            running.terminate()  # which saves a run that is not done
            running.wait()
        log.seek(0)
        said = log.read().strip()
    if running.returncode:
        raise RuntimeError(f"{folder.name} ended with exit code {running.returncode}:\n{said}")
    print(said.splitlines()[-1])


# %% [markdown]
# ## How long will it take?
#
# The program times a few steps of each method on made-up images of the right shape, and tells the hours that the row
# takes on **one** device of this machine. On several devices a large batch takes less; a batch of 16 on eight devices
# is two images each, and gains little or nothing.

# %%
planned = ["--model", MODEL, "--seeds", SEED, "--constant-plan", CONSTANT, "--increasing-plan", INCREASING]
planned += ["--methods", *dict.fromkeys(method for method, _ in CELLS)]
planned += ["--strategies", *dict.fromkeys(strategy for _, strategy in CELLS)]
planned += ["--dry-run", "--time-steps-of", TIMED_IMAGES]
show(python("-m", "experiments.reproduce", "--config", "cifar100_resnet18", *planned))

# %% [markdown]
# ## The row
#
# Cells that are done are not done again. When the session has ended, connect anew and run all cells: the run that was
# in progress goes on from its last save.

# %%
for method, strategy in CELLS:
    train(method, strategy)

# %% [markdown]
# ## How sharp are the minima?
#
# The worst case over 1,024 training images, at the paper's radius and at one of the same length for networks of every
# size. It runs on one device.

# %%
show(python("-m", "experiments.sharpness", output, *SHARPNESS, *DATA))

# %% [markdown]
# ## The table
#
# Our figures, and the paper's beside them where the settings are the row's. With one seed there is no standard
# deviation, and no difference can be told from chance: run the notebook with `SEED = 1` and `SEED = 2` too, in the
# same folder, and the table has all three.

# %%
python("-m", "experiments.report", output)
report = (output / "report" / "report.md").read_text(encoding="utf-8")
start = report.index("| test error")
display(Markdown(report[start : report.index("\n\n", start)]))

# %%
for picture in sorted((output / "report" / "pictures").rglob("test-accuracy-over-epochs.png")):
    display(Image(picture, width=800))

# %% [markdown]
# The growing plan makes three times the updates of the constant ones in the same epochs: a better figure in its
# column is no proof that growth helps. `notebooks/batch_size_schedules.ipynb` has the control for that in small; in
# the study it is `--strategies constant_first constant_mean` and `--match updates` of `experiments.reproduce`, with
# `docs/study.md`.
#
# The whole report is `report/report.html` in the folder of the runs: one page, with all pictures, that needs no
# network.
